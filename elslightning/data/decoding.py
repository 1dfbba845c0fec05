"""Image files, decoded into one bank of bytes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from elslightning.system.errors import InputError
from elslightning.system.progress import bar

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MODES = {1: "L", 3: "RGB"}
"""Pillow's name for so many channels of bytes."""
GROUND = (255, 255, 255, 255)
"""What shows where images are transparent: white."""
NAMED = 10
"""So many files that do not decode are named at once."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_CHUNK = 64

# Programs that make images write how into them. Pillow refuses texts of more than a mebibyte; all texts of a file
# together stay within its other bound.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

_T = TypeVar("_T")


def decode(paths: Sequence[Path], channels: int, side: int | None) -> UInt8[Tensor, "n channels side side"]:
    """Images as one bank of bytes, decoded by several threads.

    Raises:
        InputError: naming the first images that do not decode, or, without `side`, that are of another size.
    """
    first = _first_that_decodes(paths, channels, side)
    shape = None if first is None else read_image(first, channels, side).shape
    bank = np.empty((len(paths), *(shape or (channels, 1, 1))), np.uint8)

    def fill(index: int) -> None:
        image = read_image(paths[index], channels, side)
        if image.shape != shape:
            assert shape is not None
            raise InputError(
                f"{paths[index]} gives {image.shape[1]} pixels where {first} gives {shape[1]}: give data.image_size"
            )
        bank[index] = image

    problems = [found for found in each(fill, len(paths)) if isinstance(found, InputError)]
    raise_for_first(problems)
    return torch.from_numpy(bank)


def raise_for_first(problems: Sequence[InputError]) -> None:
    """Raises InputError with the first problems of many, and the number of the others; nothing if there are none."""
    if problems:
        more = len(problems) - NAMED
        lines = [str(problem) for problem in problems[:NAMED]]
        raise InputError(*lines, *([f"and {more} files more"] if more > 0 else []))


def _first_that_decodes(paths: Sequence[Path], channels: int, side: int | None) -> Path | None:
    for path in paths:
        try:
            read_image(path, channels, side)
        except InputError:
            continue
        return path
    return None


def each(function: Callable[[int], _T], count: int) -> Iterator[_T | InputError]:
    """What a function of the positions of files gives, or the InputError it raises, in order, by several threads."""

    def some(start: int) -> list[_T | InputError]:
        found: list[_T | InputError] = []
        for index in range(start, min(start + _CHUNK, count)):
            try:
                found.append(function(index))
            except InputError as error:
                found.append(error)
        return found

    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor() as pool:
        # A bar only if it takes long.
        for found in bar(pool.map(some, starts), total=len(starts), desc="reading images", delay=5):
            yield from found


def constant(images: UInt8[Tensor, "n channels height width"]) -> list[int]:
    """The positions of images whose every channel has one value."""
    flat = images.flatten(2)
    return (flat.amax(2) == flat.amin(2)).all(1).nonzero()[:, 0].tolist()


def read_image(path: Path, channels: int, side: int | None) -> np.ndarray:
    """The central square of an image file, (channel, side, side), bytes; without `side`, at its own size.

    Transparent pixels show `GROUND`.

    Raises:
        InputError: if the file is missing, damaged, of another format than those of `SUFFIXES`, or not of bytes.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut 16 bits off at 255
                raise InputError("its pixels have more than 8 bits")
            image: Image.Image = ImageOps.exif_transpose(file)
            short = min(image.size)
            left, top = ((length - short) // 2 for length in image.size)
            image = image.crop((left, top, left + short, top + short))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, GROUND), image)
            image = image.convert(MODES[channels])
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image: {reason}") from error
    if side is not None and short != side:
        image = image.resize((side, side), Image.Resampling.BILINEAR)  # antialiased, in Pillow
    return np.asarray(image).reshape(*image.size, channels).transpose(2, 0, 1)
