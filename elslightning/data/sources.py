"""Where images come from: the data sets that need few lines, and the table of all their names."""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits

from elslightning.data.cifar import cifar10
from elslightning.data.folder import image_folder
from elslightning.data.idx import read_idx_pairs
from elslightning.data.photos import photos
from elslightning.data.request import Request, Split

__all__ = ["SIDES", "SOURCES", "Request", "Split", "black_white", "digits", "fashion_mnist", "mnist"]


def digits(request: Request) -> tuple[Split, Split]:
    """Scikit-learn's handwritten digits, 8×8, values 0 … 16; the last 297 of its 1,797 are for validation.

    Embedded in scikit-learn: no folder is needed.
    """
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    return Split(images[:1500], labels[:1500]), Split(images[1500:], labels[1500:])


def black_white(request: Request) -> tuple[Split, Split]:
    """Two grey images, all black (-1) and all white (+1), of side `image_size` or 16: the paper's Fig. 3.

    There is nothing else to validate on: the validation set is the training set.
    """
    side = request.image_size or 16
    images = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).repeat(1, 1, side, side)
    return Split(images, None), Split(images, None)


def mnist(request: Request) -> tuple[Split, Split]:
    """MNIST, 28×28, from its four IDX files; its test set is for validation.

    Raises:
        InputError: if a file is missing or damaged, or labels and images do not match.
    """
    return read_idx_pairs(request, "MNIST")


def fashion_mnist(request: Request) -> tuple[Split, Split]:
    """Fashion-MNIST, as `mnist`."""
    return read_idx_pairs(request, "FashionMNIST")


SOURCES: dict[str, Callable[[Request], tuple[Split, Split]]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "celeba": image_folder,
    "folder": image_folder,
    "photos": photos,
    "black_white": black_white,
}

SIDES = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "cifar10": 32, "photos": 32, "black_white": 16}
"""The sides of images where `image_size` is not given, of the data sets for which that is known beforehand."""
