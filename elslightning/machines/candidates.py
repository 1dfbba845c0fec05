"""Where the candidates of every pixel lie: the displacements between a pixel and the patches it may copy from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AxisShift(NamedTuple):
    """One displacement along an axis, and what a window is compared with there."""

    offset: int
    """The candidate's position less the pixel's own; around a circular axis, the shorter way."""
    compared: np.ndarray
    """(2, positions) int64: positions of the noisy image and of the training image, side by side; -1: beyond the
    border."""


class Candidates(NamedTuple):
    """All displacements of an image, and the window that is compared at each.

    A window begins at every position of a table from which it fits into it.
    """

    rows: list[AxisShift]
    columns: list[AxisShift]
    pairs: np.ndarray
    """(displacement, 2) int64: which row and which column shift; the nearest displacement first, of equally near
    ones the upper, then the left one."""
    window: tuple[int, int]
    """Rows and columns of the window."""
    centre: tuple[int, int]
    """From the first row and column of a window to those of the pixel it stands for."""
    outputs: tuple[int, int]
    """Rows and columns of pixels with candidates of their own; 1 x 1 where the window is the whole image, for then
    all pixels share one posterior."""

    def pixels(self, k: int, m: int) -> tuple[slice, slice]:
        """The rows and columns of the pixels that have a candidate at one row and one column shift."""
        parts = []
        for shift, size, centre in zip((self.rows[k], self.columns[m]), self.window, self.centre, strict=True):
            first = int(shift.compared[0, centre])
            parts.append(slice(first, first + shift.compared.shape[1] - size + 1))
        return parts[0], parts[1]

    def offsets(self) -> np.ndarray:
        """(displacement, 2) int64 offsets in rows and columns, in the order of `pairs`."""
        rows, columns = (np.array([shift.offset for shift in axis]) for axis in (self.rows, self.columns))
        return np.stack([rows[self.pairs[:, 0]], columns[self.pairs[:, 1]]], axis=1)


def patch_shifts(length: int, radii: Sequence[int], *, pooled: bool, padding_mode: str) -> list[AxisShift]:
    """The displacements along an axis between a pixel and its candidates; the first is none at all.

    Args:
        length: pixels of the axis.
        radii: of the patches, increasing. There are the displacements of the smallest, which has all that greater ones
            have; and where windows reach beyond the border, the widest fits into the table.
        pooled: whether a pixel's candidates lie along the axis (all around it if circular, otherwise along its
            interior for interior pixels), or only at its own position.
        padding_mode: "zeros" or "circular".
    """
    around = np.arange(-radii[-1], length + radii[-1])
    if padding_mode == "circular":
        positions = range(length if pooled else 1)
        return [
            AxisShift(_shorter(shift, length), np.stack([around % length, (around + shift) % length]))
            for shift in positions
        ]
    inside = np.where((around >= 0) & (around < length), around, -1)
    shifts = [AxisShift(0, np.stack([inside, inside]))]
    reach = max(0, length - 2 * radii[0] - 1) if pooled else 0
    for shift in [s for s in range(-reach, reach + 1) if s != 0]:
        # Windows that lie inside the image at both places: interior pixels have interior candidates.
        compared = np.arange(max(0, -shift), min(length, length - shift))
        shifts.append(AxisShift(shift, np.stack([compared, compared + shift])))
    return shifts


def _shorter(shift: int, length: int) -> int:
    return (shift + length // 2) % length - length // 2


def candidates(height: int, width: int, patch_size: int, *, pooled: bool, padding_mode: str) -> Candidates:
    """The candidates of the pixels of an image.

    Args:
        height, width: of the image.
        patch_size: odd; 0: the window is the whole image.
        pooled: whether candidates lie at all locations that see the border alike (with whole images: at all circular
            shifts), or only at the pixel's own.
        padding_mode: "zeros" or "circular".
    """
    sides = (height, width)
    if patch_size:
        radius = patch_size // 2
        rows, columns = (patch_shifts(side, [radius], pooled=pooled, padding_mode=padding_mode) for side in sides)
        window, centre, outputs = (patch_size, patch_size), (radius, radius), sides
    else:
        rows, columns = (
            [
                AxisShift(_shorter(shift, side), np.stack([np.arange(side), (np.arange(side) + shift) % side]))
                for shift in range(side if pooled else 1)
            ]
            for side in sides
        )
        window, centre, outputs = sides, (0, 0), (1, 1)

    def nearness(pair: tuple[int, int]) -> tuple[int, int, int]:
        down, right = rows[pair[0]].offset, columns[pair[1]].offset
        return down**2 + right**2, down, right

    pairs = sorted(((k, m) for k in range(len(rows)) for m in range(len(columns))), key=nearness)
    return Candidates(rows, columns, np.array(pairs), window, centre, outputs)
