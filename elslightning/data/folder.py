"""Folders of images: what is understood of them, and their images in one bank of bytes."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from elslightning.data.decoding import MODES, constant, decode
from elslightning.data.finding import TRAINING, VALIDATION, Found, find, told
from elslightning.data.request import Request, Split
from elslightning.system.errors import InputError

_SHOWN = 20


class Item(NamedTuple):
    """A file, relative to the folder, and the class of its image."""

    path: Path
    label: int | None


def image_folder(request: Request) -> tuple[Split, Split]:
    """The images below `root`: centre-cropped to a square and resized to `image_size` (bilinear, antialiased).

    Which files, which order and which labels is said by `find` and `divide`. Images are turned upright as their EXIF
    says and converted to colour (`channels=3`) or grey (`channels=1`); what is transparent shows white. Only as many as
    asked for are decoded, into bytes; where there are fewer to train than asked for, all are taken, which is a doubt.
    Without `image_size`, all must have the same size.

    Raises:
        InputError: if there are too few images or too many classes, or naming the first images that do not decode.
    """
    root = request.folder("a folder of images")
    # Decoding may take minutes: what can be refused is refused before.
    if request.channels not in MODES:
        raise InputError(f"data.channels must be 1 or 3 for a folder of images, not {request.channels}")
    found = find(root)
    train, val = divide(found.images, f"data.root={root}")
    classes = len({item.label for item in train})
    if request.num_classes is not None and classes > request.num_classes:
        raise InputError(
            f"data.num_classes={request.num_classes}, but data.root={root} has {classes} folders of images"
        )
    about, doubts = describe(found, train, val, f"data.root={root}"), list(doubtful(found, f"data.root={root}"))
    if request.train_size is not None and request.train_size > len(train):
        doubts.append(
            f"data.train_size={request.train_size}, but data.root={root} has only {len(train)} images to train: "
            "all are taken"
        )
    train, val = train[: request.take("train", len(train))], val[: request.take("val", len(val))]
    items = train + val
    images = decode([root / item.path for item in items], request.channels, request.image_size)
    if flat := constant(images):
        doubts.append(f"{len(flat)} of {len(items)} images are of one colour, first {root / items[flat[0]].path}")
    return (
        Split(images[: len(train)], _labels(train), about, tuple(doubts)),
        Split(images[len(train) :], _labels(val)),
    )


def _labels(items: list[Item]) -> Tensor | None:
    labels = [item.label for item in items if item.label is not None]
    return torch.tensor(labels) if labels else None


def describe(found: Found, train: Sequence[Item], val: Sequence[Item], place: str) -> str:
    """What is understood of a folder, in a line: images, sets, classes with names and counts, and what is left out."""
    given, names = _sets(found.images), classes_of(found.images)
    sets = "the last tenth of each class for validation" if names else "the last tenth for validation"
    left = Counter(found.left)
    if given is not None:
        sets = f"sets {given[0]}/ and {given[1]}/"
        left[f"not in {given[0]}/ or {given[1]}/"] += len(found.images) - len(train) - len(val)
    counts = Counter(item.label for item in (*train, *val))
    shown = [f"{name} ({counts[label]})" for label, name in enumerate(names)]
    more = [f"{len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    parts = [
        f"{len(train)} images to train and {len(val)} to validate on ({sets})",
        f"{len(names)} classes: {', '.join([*shown[:_SHOWN], *more])}" if names else "no classes",
        *([f"left out: {told(left)}"] if left.total() else []),
    ]
    return f"{place}: {'; '.join(parts)}"


def doubtful(found: Found, place: str) -> Iterator[str]:
    """What of a folder may be meant otherwise: classes named like sets, and classes of which nothing is read."""
    names, given = classes_of(found.images), _sets(found.images)
    if alike := [name for name in names if name.lower() in (*TRAINING, *VALIDATION)]:
        yield (
            f"{place} has classes that are named like sets: {', '.join(alike)}; two sets are folders train/ and val/ "
            "(or validation/, test/, testing/) beside nothing else"
        )
    depth = 0 if given is None else 1
    folders = {path.parts[depth] for path in found.images if len(path.parts) > depth + 1}
    for name in sorted({path.parts[depth] for path in found.unread if len(path.parts) > depth + 1} - folders):
        suffixes = {path.suffix for path in found.unread if len(path.parts) > depth + 1 and path.parts[depth] == name}
        yield f"{place} has a folder {name}/ that is no class, for {', '.join(sorted(suffixes))} files are not read"


def divide(paths: Sequence[Path], place: str) -> tuple[list[Item], list[Item]]:
    """Training and validation images, with labels.

    Classes are the immediate sub-folders, numbered in the order of their names, if all images lie in sub-folders and
    there are at least two of them; otherwise there are no labels. The last tenth of the files of each class, at
    least one of two, is for validation. If the only sub-folders with images are `train` or `training` and one or more
    of `val`, `valid`, `validation`, `test`, `testing`, in whatever letters, then the former and the first of those are
    the two sets, and classes lie in them.

    Classes take turns, first files first: any first n images are balanced.

    Raises:
        InputError: if nothing is left for validation, or a validation image is of no class of the training images.
    """
    given = _sets(paths)
    if given is not None:
        train, val = ([path for path in paths if path.parts[0] == name] for name in given)
        names = _class_names(train, depth=1)
        return _take_turns(_by_class(train, names, 1, place)), _take_turns(_by_class(val, names, 1, place))
    groups = _by_class(paths, _class_names(paths, depth=0), 0, place)
    kept = [len(group) - max(1, len(group) // 10) if len(group) > 1 else 1 for group in groups]
    val_groups = [group[n:] for group, n in zip(groups, kept, strict=True)]
    if not any(val_groups):
        raise InputError(f"{place} has too few images: validation needs one of two")
    return _take_turns([group[:n] for group, n in zip(groups, kept, strict=True)]), _take_turns(val_groups)


def classes_of(paths: Sequence[Path]) -> list[str]:
    """The sub-folders that are classes, in the order of their numbers; see `divide`."""
    given = _sets(paths)
    if given is None:
        return _class_names(paths, depth=0)
    return _class_names([path for path in paths if path.parts[0] == given[0]], depth=1)


def class_folders(root: Path) -> list[str]:
    """The classes of a folder of images.

    Raises:
        InputError: as `find`.
    """
    return classes_of(find(root).images)


def _sets(paths: Sequence[Path]) -> tuple[str, str] | None:
    """The sub-folders that are the training and the validation set, if there are both and nothing else."""
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    train = [name for name in tops if name.lower() in TRAINING]
    given = [name for kind in VALIDATION for name in sorted(tops) if name.lower() == kind]
    return (train[0], given[0]) if len(train) == 1 and given and len(train) + len(given) == len(tops) else None


def _class_names(paths: Sequence[Path], depth: int) -> list[str]:
    """The sub-folders at a depth if they are classes, or nothing."""
    names = {path.parts[depth] if len(path.parts) > depth + 1 else "" for path in paths}
    return sorted(names) if len(names) > 1 and "" not in names else []


def _by_class(paths: Sequence[Path], names: list[str], depth: int, place: str) -> list[list[Item]]:
    """The files of every class; of one group if there are no classes."""
    groups: list[list[Item]] = [[] for _ in names or [""]]
    labels = {name: label for label, name in enumerate(names)}
    for path in paths:
        label = labels.get(path.parts[depth]) if names else None
        if names and label is None:
            raise InputError(f"{path} in {place} is of no class of the training images: {', '.join(names)}")
        groups[label or 0].append(Item(path, label))
    return groups


def _take_turns(groups: list[list[Item]]) -> list[Item]:
    return [item for turn in itertools.zip_longest(*groups) for item in turn if item is not None]
