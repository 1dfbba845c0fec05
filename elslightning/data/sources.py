"""Where images come from: one function per data set, and the table of their names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from elslightning.data.idx import find_idx, read_idx
from elslightning.errors import InputError


@dataclass(frozen=True)
class Split:
    """Images (n, channel, height, width), float32 in [-1, 1] or bytes, and their labels (n,) int64 or None."""

    images: Tensor
    labels: Tensor | None


def digits(root: str | Path | None) -> tuple[Split, Split]:
    """Scikit-learn's handwritten digits, 8×8, values 0 … 16; the last 297 of its 1,797 are for validation.

    Embedded in scikit-learn: `root` is not used.
    """
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    return Split(images[:1500], labels[:1500]), Split(images[1500:], labels[1500:])


def fashion_mnist(root: str | Path | None) -> tuple[Split, Split]:
    """Fashion-MNIST, 28×28, from its four IDX files; its test set is for validation.

    Raises:
        InputError: if a file is missing or damaged, or labels and images do not match.
    """
    if root is None:
        raise InputError("data=fashion_mnist needs data.root=FOLDER, the folder that holds its four IDX files")
    if not Path(root).is_dir():
        raise InputError(f"data.root={root} is not a folder")
    return _idx_split(root, "train", "FashionMNIST"), _idx_split(root, "t10k", "FashionMNIST")


def _idx_split(root: str | Path, prefix: str, folder: str) -> Split:
    images_path = find_idx(root, f"{prefix}-images-idx3-ubyte", folder)
    labels_path = find_idx(root, f"{prefix}-labels-idx1-ubyte", folder)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise InputError(f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path}")
    return Split(images[:, None], labels.long())


SOURCES: dict[str, Callable[[str | Path | None], tuple[Split, Split]]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
}
