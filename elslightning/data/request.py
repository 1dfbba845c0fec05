"""What a data set is asked for, and what it gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from elslightning.system.errors import InputError


class AbsentError(InputError):
    """Files of a data set that are not where they were looked for: a download may help."""


@dataclass(frozen=True)
class Split:
    """Images (n, channel, height, width), float32 in [-1, 1] or bytes, and their labels (n,) int64 or None.

    Attributes:
        about: in a line, what the source has understood of where they come from, if that can be meant in several ways.
        doubts: a line each for what may be meant otherwise.
    """

    images: Tensor
    labels: Tensor | None
    about: str = ""
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What is asked of a data set; the fields are `ImageDataModule`'s arguments.

    A source for which an image costs time gives only those that are asked for, at the side that is asked for; others
    give all they have as it is, and the module takes what it needs.
    """

    dataset: str
    root: str | Path | None = None
    channels: int = 1
    num_classes: int | None = None
    train_size: int | None = None
    val_size: int | None = None
    image_size: int | None = None

    def folder(self, holding: str) -> Path:
        """The folder `root`, which must be there; `holding` says what belongs into it.

        Raises:
            InputError: if no folder is given.
            AbsentError: if it does not exist.
        """
        if self.root is None:
            raise InputError(f"data={self.dataset} needs data.root=FOLDER, {holding}")
        if not Path(self.root).is_dir():
            raise AbsentError(f"data.root={self.root} is not a folder: data={self.dataset} needs {holding}")
        return Path(self.root)

    def take(self, part: Literal["train", "val"], available: int) -> int:
        """How many of the `available` images are wanted for `part`.

        A folder of images gives all it has for training where more are wanted.

        Raises:
            InputError: if there are none, or fewer than wanted.
        """
        wanted = self.train_size if part == "train" else self.val_size
        if available == 0:
            raise InputError(f"{self.dataset} has no {part} images")
        if wanted is not None and wanted > available and (self.dataset, part) != ("folder", "train"):
            raise InputError(f"data.{part}_size={wanted}, but {self.dataset} has only {available} images")
        return available if wanted is None else min(wanted, available)
