"""Data sets as tensors in [-1, 1]."""

from elslightning.data.module import Batch, ImageDataModule
from elslightning.data.sources import SOURCES, Split

__all__ = ["SOURCES", "Batch", "ImageDataModule", "Split"]
