"""The dial of creativity: from recall over collage to texture, by the windows of a local machine."""

import math
from collections.abc import Sequence

from torch import Tensor

from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError

MARK = 0.5
"""Where the dial stands at the windows that it was made of: those that denoise held-out images best."""
TEXTURE = 3
"""The window, in pixels, at the end of the dial: no more than which pixels may lie side by side."""


def whole_window(shape: Sequence[int], padding_mode: str) -> int:
    """The patch size with which a machine sees whole images (height, width): with zero padding from each pixel's own
    place, so that bbELS is the ideal score machine; around a torus the largest that fits.

    >>> whole_window((8, 6), "zeros"), whole_window((8, 6), "circular")
    (15, 5)
    """
    return _odd(min(shape), min(shape)) if padding_mode == "circular" else 2 * max(shape) - 1


def widest(shape: Sequence[int], canvas: Sequence[int], padding_mode: str) -> int:
    """The largest window on a canvas (height, width): on another size than the training images', half of their
    shorter side, for what is larger leaves the canvas little that it could be pieced together from."""
    whole, half = whole_window(shape, padding_mode), min(shape) // 2
    return whole if tuple(shape) == tuple(canvas) else min(whole, max(TEXTURE, half - 1 + half % 2))


def dialled(scales: ParameterTable, creativity: float, *, whole: int, most: int) -> ScaleTable:
    """The windows at a setting of the dial.

    At each noise level the logarithm of the patch size goes along a straight line, from that of the whole image at 0 to
    that of `scales` at `MARK`, and on to that of `TEXTURE` at 1. Sources go with the windows: the wider the window, the
    fewer places see the border as a pixel does, until each has only its own.

    Args:
        scales: the windows at `MARK`, with a column of patch sizes.
        creativity: from 0 to 1.
        whole: the patch size that sees a whole image, see `whole_window`.
        most: the largest patch size allowed.

    Raises:
        InputError: for a setting outside [0, 1].

    >>> table = ScaleTable([0.9, 0.1], [3, 9])
    >>> [dialled(table, place, whole=31, most=31).patch_size.tolist() for place in (0, 0.25, 0.5, 0.75, 1)]
    [[31, 31], [9, 17], [3, 9], [3, 5], [3, 3]]
    """
    if not 0 <= creativity <= 1:
        raise InputError(f"creativity must lie between 0 (recall) and 1 (texture), not {creativity:g}")
    sizes = []
    for size in scales.columns[PATCH_SIZE].tolist():
        start, end = (whole, size) if creativity < MARK else (size, min(size, TEXTURE))
        share = creativity / MARK if creativity < MARK else (creativity - MARK) / (1 - MARK)
        sizes.append(_odd(math.exp((1 - share) * math.log(start) + share * math.log(end)), most))
    return ScaleTable(scales.alpha_bar, sizes)


def stretched(scales: ParameterTable, factor: float, most: int | None = None) -> ParameterTable:
    """Windows made larger or smaller by a factor: patch sizes, to the nearest odd number, and, where a machine has
    them, the widths of its soft windows and responses.

    Args:
        scales: of any machine; what is not a length stays.
        factor: positive.
        most: the largest patch size allowed.
    """
    lengths = {"softness", "response"}
    columns: dict[str, Tensor | list[int]] = {
        name: column * factor if name in lengths else column for name, column in scales.columns.items()
    }
    if PATCH_SIZE in columns:
        sizes = scales.columns[PATCH_SIZE].tolist()
        further = {name: column for name, column in columns.items() if name != PATCH_SIZE}
        return ScaleTable(scales.alpha_bar, [_odd(size * factor, most or math.inf) for size in sizes], further)
    return ParameterTable(scales.alpha_bar, columns)


def _odd(size: float, most: float) -> int:
    """The nearest odd number, at least 1 and at most `most`."""
    nearest = 2 * round((min(size, most) - 1) / 2) + 1
    return max(1, nearest if nearest <= most else nearest - 2)
