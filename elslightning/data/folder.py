"""Folders of images, decoded into one bank of bytes."""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from elslightning.data.request import Request, Split
from elslightning.system.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_MODES = {1: "L", 3: "RGB"}
_VALIDATION = ("val", "valid", "validation", "test")
_CHUNK = 64


class Item(NamedTuple):
    """A file, relative to the folder, and the class of its image."""

    path: Path
    label: int | None


def image_folder(request: Request) -> tuple[Split, Split]:
    """The images below `root`: centre-cropped to a square and resized to `image_size` (bilinear, antialiased).

    Which files, which order and which labels is said by `find_images` and `divide`. Images are turned upright as
    their EXIF says and converted to colour (`channels=3`) or grey (`channels=1`); transparency is ignored. Only as
    many as asked for are decoded, into bytes. Without `image_size`, all must have the same size.

    Raises:
        InputError: if there are too few images or too many classes, or naming the first image that does not decode.
    """
    root = request.folder("a folder of images")
    # Decoding may take minutes: what can be refused is refused before.
    if request.channels not in _MODES:
        raise InputError(f"data.channels must be 1 or 3 for a folder of images, not {request.channels}")
    train, val = divide(find_images(root), f"data.root={root}")
    classes = len({item.label for item in train})
    if request.num_classes is not None and classes > request.num_classes:
        raise InputError(
            f"data.num_classes={request.num_classes}, but data.root={root} has {classes} folders of images"
        )
    train, val = train[: request.take("train", len(train))], val[: request.take("val", len(val))]
    images = decode([root / item.path for item in train + val], request.channels, request.image_size)
    return Split(images[: len(train)], _labels(train)), Split(images[len(train) :], _labels(val))


def _labels(items: list[Item]) -> Tensor | None:
    labels = [item.label for item in items if item.label is not None]
    return torch.tensor(labels) if labels else None


def find_images(root: Path) -> list[Path]:
    """Images at any depth below `root`, by suffix, relative to it, sorted by path.

    Hidden files and folders are left out. Links to files are read; links to folders are not followed, which may
    lead anywhere.

    Raises:
        InputError: if there is no image, or a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error

    found = []
    for directory, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(directory).relative_to(root)
        found += [place / name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise InputError(f"data.root={root} holds no {', '.join(SUFFIXES)} file (links to folders are not followed)")
    return sorted(found, key=lambda path: path.parts)


def divide(paths: Sequence[Path], place: str) -> tuple[list[Item], list[Item]]:
    """Training and validation images, with labels.

    Classes are the immediate sub-folders, numbered in the order of their names, if all images lie in sub-folders and
    there are at least two of them; otherwise there are no labels. The last tenth of the files of each class, at
    least one of two, is for validation. If the only sub-folders with images are `train` and one or more of `val`,
    `valid`, `validation`, `test`, then `train` and the first of those are the two sets, and classes lie in them.

    Classes take turns, first files first: any first n images are balanced.

    Raises:
        InputError: if nothing is left for validation, or a validation image is of no class of the training images.
    """
    given = _validation_folder(paths)
    if given is not None:
        train, val = ([path for path in paths if path.parts[0] == name] for name in ("train", given))
        names = _class_names(train, depth=1)
        return _take_turns(_by_class(train, names, 1, place)), _take_turns(_by_class(val, names, 1, place))
    groups = _by_class(paths, _class_names(paths, depth=0), 0, place)
    kept = [len(group) - max(1, len(group) // 10) if len(group) > 1 else 1 for group in groups]
    val_groups = [group[n:] for group, n in zip(groups, kept, strict=True)]
    if not any(val_groups):
        raise InputError(f"{place} has too few images: validation needs one of two")
    return _take_turns([group[:n] for group, n in zip(groups, kept, strict=True)]), _take_turns(val_groups)


def class_folders(root: Path) -> list[str]:
    """The sub-folders of a folder of images that are its classes, in the order of their numbers; see `divide`.

    Raises:
        InputError: as `find_images`.
    """
    paths = find_images(root)
    if _validation_folder(paths) is None:
        return _class_names(paths, depth=0)
    return _class_names([path for path in paths if path.parts[0] == "train"], depth=1)


def _validation_folder(paths: Sequence[Path]) -> str | None:
    """The sub-folder that holds the validation images, if there is one beside `train` and nothing else."""
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    given = next((name for name in _VALIDATION if name in tops), None)
    return given if "train" in tops and tops <= {"train", *_VALIDATION} else None


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


def decode(paths: Sequence[Path], channels: int, side: int | None) -> UInt8[Tensor, "n channels side side"]:
    """Images as one bank of bytes, decoded by several threads.

    Raises:
        InputError: naming the first image that does not decode, or, without `side`, that is of another size.
    """
    shape = read_image(paths[0], channels, side).shape
    bank = np.empty((len(paths), *shape), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(paths))):
            image = read_image(paths[index], channels, side)
            if image.shape != shape:
                raise InputError(
                    f"{paths[index]} gives {image.shape[1]} pixels where {paths[0]} gives {shape[1]}: "
                    "give data.image_size"
                )
            bank[index] = image

    starts = range(0, len(paths), _CHUNK)
    with ThreadPoolExecutor() as pool:
        # In order, so that the first bad image is the one that is named; a bar only if it takes long.
        for _ in tqdm(pool.map(fill, starts), total=len(starts), desc="reading images", delay=5, dynamic_ncols=True):
            pass
    return torch.from_numpy(bank)


def read_image(path: Path, channels: int, side: int | None) -> np.ndarray:
    """The central square of an image file, (channel, side, side), bytes; without `side`, at its own size.

    Raises:
        InputError: if the file is missing, damaged, of another format than those of `SUFFIXES`, or not of bytes.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut 16 bits off at 255
                raise InputError("its pixels have more than 8 bits")
            image = ImageOps.exif_transpose(file)
            short = min(image.size)
            left, top = ((length - short) // 2 for length in image.size)
            image = image.crop((left, top, left + short, top + short)).convert(_MODES[channels])
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image: {reason}") from error
    if side is not None and short != side:
        image = image.resize((side, side), Image.Resampling.BILINEAR)  # antialiased, in Pillow
    return np.asarray(image).reshape(*image.size, channels).transpose(2, 0, 1)
