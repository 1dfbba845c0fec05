"""What happens at the border: padding, and the border class of every pixel."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from elslightning.system.errors import InputError

PADDING_MODES = ("zeros", "circular")


def check_padding_mode(padding_mode: str) -> None:
    """Raises InputError unless `padding_mode` is one of `PADDING_MODES`."""
    if padding_mode not in PADDING_MODES:
        raise InputError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, not {padding_mode!r}")


def check_patch_size(patch_size: int) -> None:
    """Raises InputError unless `patch_size` is odd and positive."""
    if patch_size < 1 or patch_size % 2 == 0:
        raise InputError(f"a patch size must be odd and positive, not {patch_size}")


def pad(
    images: Float[Tensor, "n channel height width"], radius: int, padding_mode: str
) -> Float[Tensor, "n channel padded_height padded_width"]:
    """`images` with `radius` more pixels on every side: zeros, or the image wrapped around.

    Raises:
        InputError: for an unknown padding mode, or a circular radius greater than a side of the image.
    """
    check_padding_mode(padding_mode)
    sides = (radius, radius, radius, radius)
    if padding_mode == "zeros":
        return F.pad(images, sides)
    if radius > min(images.shape[2:]):
        raise InputError(
            f"a circular patch of radius {radius} wraps more than once around an image of "
            f"{images.shape[2]} x {images.shape[3]} pixels"
        )
    return F.pad(images, sides, mode="circular")


def interior(length: int, radius: int) -> slice:
    """The indices i of an axis with `radius <= i < length - radius`; empty where `2 radius >= length`."""
    return slice(radius, length - radius) if 2 * radius < length else slice(length, length)


def border_class(length: int, radius: int) -> Int64[Tensor, " length"]:
    """The border class of every index of one axis (Kamb & Ganguli, eq. 41 and Fig. 9).

    Interior indices share the class `length`; every other index is a class of its own, namely itself.

    >>> border_class(6, 2).tolist()
    [0, 1, 6, 6, 4, 5]
    >>> border_class(4, 2).tolist()
    [0, 1, 2, 3]
    """
    classes = torch.arange(length)
    classes[interior(length, radius)] = length
    return classes


def pixel_class(height: int, width: int, radius: int) -> Int64[Tensor, "height width"]:
    """The border class of every pixel: one number per pair (class of its row, class of its column).

    Two pixels have the same class exactly when a window of this radius overlaps the border alike at both.
    """
    rows = border_class(height, radius)
    columns = border_class(width, radius)
    return rows[:, None] * (width + 1) + columns[None, :]
