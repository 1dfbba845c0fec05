"""ImageDataModule: a data set as tensors, for training loops and for machines alike."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as TF

from elslightning.data.download import DOWNLOADS, download
from elslightning.data.numbers import number_problems
from elslightning.data.request import AbsentError, Request, Split
from elslightning.data.sources import SOURCES
from elslightning.diffusion.pixels import to_floats
from elslightning.system.checks import one_of, raise_for
from elslightning.system.errors import InputError


class Batch(NamedTuple):
    """Images (batch, channel, height, width), labels (batch,) or None, and positions in the data set (batch,)."""

    images: Tensor
    labels: Tensor | None
    indices: Tensor


RESIDENT = 2**30
"""Bytes of images that a GPU may hold besides a training."""


class TensorBank(Dataset[Batch]):
    """Images held as one tensor; a whole batch is taken by one indexing.

    On a GPU those of at most `RESIDENT` bytes lie on it: a batch is made where it is used.
    """

    def __init__(self, split: Split, device: torch.device | None = None) -> None:
        if device is not None and device.type != "cpu" and split.images.nbytes <= RESIDENT:
            labels = None if split.labels is None else split.labels.to(device)
            split = replace(split, images=split.images.to(device), labels=labels)
        self.split = split

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        there = index.to(self.split.images.device)
        labels = None if self.split.labels is None else self.split.labels[there]
        return Batch(to_floats(self.split.images[there]), labels, index)


def _whole_batch(batch: Any) -> Any:
    return batch


class ImageDataModule(pl.LightningDataModule):
    """Training and validation images in [-1, 1], as tensors and as loaders.

    Args:
        dataset: a name from `elslightning.data.SOURCES`.
        root: folder of the data on disk, where the data set needs one; `~` is the home folder.
        download: whether data that is not in `root` is fetched into it, where torchvision knows how to.
        channels: channels the images must have.
        num_classes: number of classes, or None where there are no labels; labels must lie below it.
        train_size: take the first `train_size` training images; None takes all.
        val_size: take the first `val_size` validation images; None takes all.
        image_size: side in pixels to resize to (bilinear, antialiased); None keeps the size.
        batch_size: images per training step and process.

    After `setup()`: `train_images` (N, channel, height, width) float32, `train_labels` (N,) int64 or None, and
    `val_images`, `val_labels` alike. Images that come in bytes are held in bytes, resized ones rounded to them, and
    become floats batch by batch, or whole when `train_images` is asked for.
    """

    def __init__(
        self,
        dataset: str,
        *,
        root: str | Path | None = None,
        download: bool = False,
        channels: int = 1,
        num_classes: int | None = None,
        train_size: int | None = None,
        val_size: int | None = None,
        image_size: int | None = None,
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "num_classes": num_classes, "train_size": train_size, "val_size": val_size}
        numbers |= {"image_size": image_size, "batch_size": batch_size}
        problems = [*one_of("data.dataset", dataset, SOURCES), *number_problems(numbers)]
        if not isinstance(root, str | Path | None):
            problems.append(f"data.root must be a folder, not {root!r}")
        if download is not False and (download is not True or dataset not in DOWNLOADS):
            problems.append(f"data.download can be true for {', '.join(DOWNLOADS)}, not {download!r} for {dataset}")
        raise_for(*problems)
        self.dataset = dataset
        self.root = None if root is None else Path(root).expanduser()
        self.download = download
        self.channels = channels
        self.num_classes = num_classes
        self.train_size = train_size
        self.val_size = val_size
        self.image_size = image_size
        self.batch_size = batch_size
        self._train: Split | None = None
        self._val: Split | None = None
        self._checksum: str | None = None

    def setup(self, stage: str | None = None) -> None:
        """Loads the data, once.

        Raises:
            InputError: if it is missing, damaged, smaller than asked for, or not what the configuration says.
        """
        if self._train is None:
            request = Request(
                self.dataset,
                root=self.root,
                channels=self.channels,
                num_classes=self.num_classes,
                train_size=self.train_size,
                val_size=self.val_size,
                image_size=self.image_size,
            )
            train, val = self._load(request)
            self._train, self._val = self._prepare(train, "train", request), self._prepare(val, "val", request)

    def _load(self, request: Request) -> tuple[Split, Split]:
        try:
            return SOURCES[self.dataset](request)
        except AbsentError as error:
            if self.dataset not in DOWNLOADS:
                raise
            if not self.download or self.root is None:
                raise InputError(f"{error}; data.download=true fetches it") from error
            download(self.dataset, self.root)
            return SOURCES[self.dataset](request)

    def _prepare(self, split: Split, part: Literal["train", "val"], request: Request) -> Split:
        count = request.take(part, len(split.images))
        # A copy, where some are left: a part would keep the whole in memory.
        images = split.images[:count].clone() if count < len(split.images) else split.images
        labels = None if split.labels is None else split.labels[:count]
        if images.shape[1] != self.channels:
            raise InputError(
                f"data.channels={self.channels}, but {self.dataset} has images of {images.shape[1]} channels"
            )
        if self.image_size is not None and tuple(images.shape[2:]) != (self.image_size, self.image_size):
            images = resize(images, self.image_size)
        if images.dtype != torch.uint8:
            check_images(images, f"the {part} images of {self.dataset}")
        if labels is not None and self.num_classes is not None:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            if len(wrong):
                raise InputError(f"data.num_classes={self.num_classes}, but {self.dataset} has a label {int(wrong[0])}")
        return Split(images.contiguous(), labels, split.about, split.doubts)

    def _split(self, split: Split | None) -> Split:
        if split is None:
            raise InputError("the data is not loaded yet: call setup() first")
        return split

    @property
    def about(self) -> str:
        """What was understood of where the images come from, in a line; empty where there is only one way to."""
        return self._split(self._train).about

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may be meant otherwise, a line each."""
        return self._split(self._train).doubts

    @property
    def train_images(self) -> Tensor:
        """The training set, (N, channel, height, width) float32 in [-1, 1]; a copy, if the data is held in bytes."""
        return to_floats(self._split(self._train).images)

    @property
    def train_labels(self) -> Tensor | None:
        """Classes of the training set, (N,) int64, or None."""
        return self._split(self._train).labels

    @property
    def val_images(self) -> Tensor:
        """The validation set, as `train_images`."""
        return to_floats(self._split(self._val).images)

    @property
    def val_labels(self) -> Tensor | None:
        """Classes of the validation set, as `train_labels`."""
        return self._split(self._val).labels

    def checksum(self) -> str:
        """SHA-256 of the bytes of `train_images`, little-endian, and of `train_labels` if there are any."""
        if self._checksum is not None:
            return self._checksum
        found, train = hashlib.sha256(), self._split(self._train)
        for part in train.images.split(1024):
            found.update(to_floats(part).numpy().astype("<f4", copy=False).tobytes())
        if train.labels is not None:
            found.update(train.labels.numpy().astype("<i8", copy=False).tobytes())
        self._checksum = found.hexdigest()
        return self._checksum

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._split(self._train), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._split(self._val), shuffle=False)

    def _loader(self, split: Split, shuffle: bool) -> DataLoader[Batch]:
        # The tensors are in memory: worker processes would only copy them.
        device = None if self.trainer is None else self.trainer.strategy.root_device
        return DataLoader(
            TensorBank(split, device),
            batch_size=self.batch_size,
            shuffle=shuffle,
            collate_fn=_whole_batch,
            num_workers=0,
        )


def resize(images: Tensor, side: int) -> Tensor:
    """Images resized to squares of `side` pixels, bilinear and antialiased; bytes stay bytes, rounded."""
    # In parts, for torchvision makes floats of bytes on the way.
    return torch.cat([TF.resize(part, [side, side], antialias=True) for part in images.split(1024)])


def check_images(images: Tensor, place: str) -> None:
    """Raises InputError, naming `place`, unless `images` are finite and lie in [-1, 1]."""
    if not bool(torch.isfinite(images).all()):
        bad = int((~torch.isfinite(images).flatten(1).all(dim=1)).nonzero()[0])
        raise InputError(f"{place} contain a pixel that is not finite, first in image {bad}")
    # Antialiased resizing overshoots by rounding only.
    if float(images.min()) < -1.001 or float(images.max()) > 1.001:
        raise InputError(f"{place} must be scaled to [-1, 1], and lie in [{images.min():.4g}, {images.max():.4g}]")
