"""ImageDataModule: a data set as tensors, for training loops and for machines alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as TF

from elslightning.data.sources import SOURCES, Split
from elslightning.errors import InputError


class Batch(NamedTuple):
    """Images (batch, channel, height, width), labels (batch,) or None, and positions in the data set (batch,)."""

    images: Tensor
    labels: Tensor | None
    indices: Tensor


class TensorBank(Dataset[Batch]):
    """Images held as one tensor; a whole batch is taken by one indexing."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        labels = None if self.split.labels is None else self.split.labels[index]
        return Batch(self.split.images[index], labels, index)


def _whole_batch(batch: Any) -> Any:
    return batch


class ImageDataModule(pl.LightningDataModule):
    """Training and validation images in [-1, 1], as tensors and as loaders.

    Args:
        dataset: a name from `elslightning.data.SOURCES`.
        root: folder of the data on disk, where the data set needs one.
        channels: channels the images must have.
        num_classes: number of classes, or None where there are no labels; labels must lie below it.
        train_size: take the first `train_size` training images; None takes all.
        val_size: take the first `val_size` validation images; None takes all.
        image_size: side in pixels to resize to (bilinear, antialiased); None keeps the size.
        batch_size: images per training step and process.

    After `setup()`: `train_images` (N, channel, height, width) float32, `train_labels` (N,) int64 or None, and
    `val_images`, `val_labels` alike.
    """

    def __init__(
        self,
        dataset: str,
        *,
        root: str | Path | None = None,
        channels: int = 1,
        num_classes: int | None = None,
        train_size: int | None = None,
        val_size: int | None = None,
        image_size: int | None = None,
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        if dataset not in SOURCES:
            raise InputError(f"data.dataset must be one of {', '.join(SOURCES)}, not {dataset!r}")
        for key, value in {
            "train_size": train_size,
            "val_size": val_size,
            "image_size": image_size,
            "batch_size": batch_size,
        }.items():
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise InputError(f"data.{key} must be a whole number, at least 1, not {value!r}")
        self.dataset = dataset
        self.root = root
        self.channels = channels
        self.num_classes = num_classes
        self.train_size = train_size
        self.val_size = val_size
        self.image_size = image_size
        self.batch_size = batch_size
        self._train: Split | None = None
        self._val: Split | None = None

    def setup(self, stage: str | None = None) -> None:
        """Loads the data, once.

        Raises:
            InputError: if it is missing, damaged, smaller than asked for, or not what the configuration says.
        """
        if self._train is None:
            train, val = SOURCES[self.dataset](self.root)
            self._train = self._prepare(train, "train", self.train_size)
            self._val = self._prepare(val, "val", self.val_size)

    def _prepare(self, split: Split, name: str, size: int | None) -> Split:
        images, labels = split.images, split.labels
        if size is not None:
            if size > len(images):
                raise InputError(f"data.{name}_size={size}, but {self.dataset} has only {len(images)} images")
            images = images[:size]
            labels = None if labels is None else labels[:size]
        images = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images
        if self.image_size is not None and tuple(images.shape[2:]) != (self.image_size, self.image_size):
            images = TF.resize(images, [self.image_size, self.image_size], antialias=True)
        check_images(images, f"the {name} images of {self.dataset}")
        if images.shape[1] != self.channels:
            raise InputError(
                f"data.channels={self.channels}, but {self.dataset} has images of {images.shape[1]} channels"
            )
        if labels is not None and self.num_classes is not None:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            if len(wrong):
                raise InputError(f"data.num_classes={self.num_classes}, but {self.dataset} has a label {int(wrong[0])}")
        return Split(images.contiguous(), labels)

    def _split(self, split: Split | None) -> Split:
        if split is None:
            raise InputError("the data is not loaded yet: call setup() first")
        return split

    @property
    def train_images(self) -> Tensor:
        """The training set, (N, channel, height, width) float32 in [-1, 1]."""
        return self._split(self._train).images

    @property
    def train_labels(self) -> Tensor | None:
        """Classes of the training set, (N,) int64, or None."""
        return self._split(self._train).labels

    @property
    def val_images(self) -> Tensor:
        """The validation set, as `train_images`."""
        return self._split(self._val).images

    @property
    def val_labels(self) -> Tensor | None:
        """Classes of the validation set, as `train_labels`."""
        return self._split(self._val).labels

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._split(self._train), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._split(self._val), shuffle=False)

    def _loader(self, split: Split, shuffle: bool) -> DataLoader[Batch]:
        # The tensors are in memory: worker processes would only copy them.
        return DataLoader(
            TensorBank(split),
            batch_size=self.batch_size,
            shuffle=shuffle,
            collate_fn=_whole_batch,
            num_workers=0,
        )


def check_images(images: Tensor, place: str) -> None:
    """Raises InputError, naming `place`, unless `images` are finite and lie in [-1, 1]."""
    if not bool(torch.isfinite(images).all()):
        bad = int((~torch.isfinite(images).flatten(1).all(dim=1)).nonzero()[0])
        raise InputError(f"{place} contain a pixel that is not finite, first in image {bad}")
    # Antialiased resizing overshoots by rounding only.
    if float(images.min()) < -1.001 or float(images.max()) > 1.001:
        raise InputError(f"{place} must be scaled to [-1, 1], and lie in [{images.min():.4g}, {images.max():.4g}]")
