"""Data sets as tensors in [-1, 1]."""

from elslightning.data.module import Batch, ImageDataModule
from elslightning.data.request import Request, Split
from elslightning.data.sources import SIDES, SOURCES

__all__ = ["SIDES", "SOURCES", "Batch", "ImageDataModule", "Request", "Split"]
