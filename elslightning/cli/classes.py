"""What is created from: the images of the data, or of one class, that has a number and may have a name."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elslightning.data.folder import class_folders
from elslightning.data.module import ImageDataModule
from elslightning.data.names import class_names
from elslightning.data.request import Split
from elslightning.measurement.creation import named
from elslightning.system.checks import did_you_mean
from elslightning.system.errors import InputError, note

_SHOWN = 20
"""Classes that a line names."""
_UNLABELLED = ("photos", "black_white")


@dataclass(frozen=True)
class Bank:
    """Images to create from.

    Attributes:
        images: (N, channel, height, width).
        heldout: (M, channel, height, width), their mark.
        known: the images with their labels, if there are any, and as many of every other class, which samples of one
            class are told from.
        label: of the one class, or None.
        class_name: what it is called, if it has a name.
    """

    images: Tensor
    heldout: Tensor
    known: Split
    label: int | None = None
    class_name: str = ""


def check_class(label: int | str, data: ImageDataModule) -> None:
    """Raises InputError for a class that there is not, as far as that is known before the data are loaded."""
    names = class_names(data.dataset, data.root)
    if data.dataset == "folder" and data.root is not None and data.root.is_dir():
        names = tuple(class_folders(data.root))  # says what is wrong with a folder without images
        if not names:
            raise InputError(_unlabelled(label))
    if data.dataset in _UNLABELLED:
        raise InputError(_unlabelled(label))
    if names:
        _number_of(label, range(len(names)), names)


def bank_of(data: ImageDataModule, label: int | str | None, most: int | None) -> Bank:
    """The first images of the data, which are loaded, or those of one class.

    Args:
        data: the images.
        label: the number of a class, or its name; None takes all images.
        most: images that are taken; None takes all.

    Raises:
        InputError: for data without labels, a class that there is not, and one with fewer than 2 images to train
            or none held out.
    """
    if label is None:
        return _all(data, most)
    images, labels = data.train_images, data.train_labels
    if labels is None or data.val_labels is None:
        raise InputError(_unlabelled(label))
    names = class_names(data.dataset, data.root)
    number = _number_of(label, labels.unique().tolist(), names)
    name = names[number] if number < len(names) else ""
    heldout = data.val_images[data.val_labels == number]
    available = int((labels == number).sum())
    if available < 2 or not len(heldout):
        few = f"{available} to train and {len(heldout)} held out"
        raise InputError(f"label={label}: elslightning create needs 2 images to train and 1 held out, not {few}")
    first = torch.cat([(labels == each).nonzero()[:most, 0] for each in labels.unique()]).sort().values
    known = Split(images[first], labels[first])
    own = known.images[labels[first] == number]
    some = f"the first {len(own)} of {available}" if len(own) < available else f"the {available}"
    note(f"created from {some} images of class {named(number, name)}{' (max_images)' if len(own) < available else ''}")
    return Bank(own, heldout, known, number, name)


def _all(data: ImageDataModule, most: int | None) -> Bank:
    images, labels = data.train_images, data.train_labels
    if len(images) < 2:
        raise InputError(f"elslightning create needs at least 2 training images, not {len(images)}")
    if most is not None and len(images) > most:
        note(f"created from the first {most} of {len(images)} images (max_images)")
        images = images[:most]
    return Bank(images, data.val_images, Split(images, None if labels is None else labels[: len(images)]))


def _unlabelled(label: int | str) -> str:
    return f"label={label}, but the data has no labels"


def _number_of(label: int | str, present: Sequence[int], names: Sequence[str]) -> int:
    """The number of a class.

    >>> _number_of("dog", [0, 1], ["cat", "dog"]), _number_of(1, [0, 1], [])
    (1, 1)
    """
    number = names.index(label) if isinstance(label, str) and label in names else label
    if isinstance(number, int) and number in present:
        return number
    called = [named(each, names[each] if each < len(names) else "") for each in present]
    more = [f"{len(called) - _SHOWN} more"] if len(called) > _SHOWN else []
    meant = did_you_mean(label, names)
    raise InputError(f"label={label} is not a class of the data: {', '.join([*called[:_SHOWN], *more])}{meant}")
