"""What a folder of images suggests for a training, before anything is decoded."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from elslightning.data.finding import find
from elslightning.data.folder import classes_of, divide
from elslightning.system.errors import InputError

_LOOKED_AT = 200
_GREY = ("1", "L", "LA", "I", "I;16", "F")


class Survey(NamedTuple):
    """What files say by their places and headers.

    Attributes:
        classes: the names of the sub-folders that are classes; none where there are no classes.
        train, val: how many images there are for training and for validation.
        side: the least side of an image, in pixels, of 200 evenly spread ones.
        channels: 1 if those are all grey, else 3.
    """

    classes: tuple[str, ...]
    train: int
    val: int
    side: int
    channels: int


def survey(root: Path, place: str) -> Survey:
    """Looks at a folder of images; `place` names it in errors.

    Raises:
        InputError: as `find` and `divide` do, and if no header can be read.
    """
    found = find(root)
    train, val = divide(found.images, place)
    sides, modes = [], set()
    for path in found.images[:: -(-len(found.images) // _LOOKED_AT)]:
        try:
            with Image.open(root / path) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except (OSError, ValueError, Image.DecompressionBombError):  # decoding names it
            continue
    if not sides:
        raise InputError(f"{place}: none of the images can be read, such as {root / found.images[0]}")
    channels = 1 if modes.issubset(_GREY) else 3
    return Survey(tuple(classes_of(found.images)), len(train), len(val), min(sides), channels)
