"""Tiles: pixels side by side that look for their candidates together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from elslightning.machines.patches import PatchMachine

MOST = 8
"""The longest side of a tile whose pixels share no candidates along it."""
LONGEST = 7
"""The longest side of one whose pixels do."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of an image that share their candidates.

    A tile's region is what the windows of its pixels cover. A candidate is such a region around any place from which
    one of the pixels may copy; the pixels of a tile have their windows in the same places of the region.

    Attributes:
        patch_size: P.
        shape: rows and columns of a tile.
        asked: (tile, region) int64: the pixels of each tile's region; -1 beyond the border.
        pixels: (tile, pixel) int64: the tile's own; -1 where it goes beyond those that share these candidates.
        table: (location, region) int64: the pixels of each candidate's region.
        below, beside: (row of locations, row) and (column of locations, column) whether that row or column of a
            candidate is one that its pixels of a tile may copy.
        origins: (location,) int64 where in an image each of those begins, if they are parts of it as it is; otherwise
            without entries.
        beyond: (n,) int64 the places of a region that are beyond the border for every candidate.
        root: (region,) float32: square roots of how much a pixel of the region counts in a window, in the mean.
        window: (P,) float32: how much each pixel of a window counts along an axis.
        response: (odd,) float32: how much each pixel around a location gets of what it says, along an axis.
    """

    patch_size: int
    shape: tuple[int, int]
    asked: np.ndarray
    pixels: np.ndarray
    table: np.ndarray
    below: np.ndarray
    beside: np.ndarray
    origins: np.ndarray
    beyond: np.ndarray
    root: np.ndarray
    window: np.ndarray
    response: np.ndarray

    @property
    def hard(self) -> bool:
        """Whether all pixels of a window count alike, and locations say what their own pixel is only."""
        return len(self.response) == 1 and bool((self.window == 1).all())

    def painted(self, numbers: np.ndarray) -> np.ndarray:
        """Of numbers for each pixel of a region (tile, region), those of pixels that its tile paints."""
        height, width, _, _, size = self.geometry
        inset = (size - len(self.response)) // 2
        regions = numbers.reshape(len(numbers), height, width)
        return regions[:, inset : height - inset, inset : width - inset].reshape(len(numbers), -1)

    def responses(self, own: np.ndarray) -> np.ndarray:
        """How much all pixels of a tile that count, `own` (tile, pixel), respond to each that it paints."""
        axes = []
        for length in self.shape:
            axis = np.zeros((length, length + len(self.response) - 1))
            for place in range(length):
                axis[place, place : place + len(self.response)] = self.response
            axes.append(axis)
        found = np.einsum("nyx,yv,xu->nvu", own.reshape(len(own), *self.shape).astype(float), *axes)
        return found.reshape(len(own), -1)

    @property
    def most_cells(self) -> int:
        """Into how many cells candidates may go: small tiles are many, and each looks at all cells."""
        return 2**12 * self.pixels.shape[1]

    @property
    def geometry(self) -> tuple[int, int, int, int, int]:
        """Height and width of a region, rows and columns of a tile, patch size."""
        away = self.patch_size - 1
        return (self.shape[0] + away, self.shape[1] + away, *self.shape, self.patch_size)


@dataclass(frozen=True)
class _Axis:
    """Where tiles begin along an axis, and candidates; `low` and `high` bound what may be copied."""

    tiles: np.ndarray
    candidates: np.ndarray
    length: int
    low: int
    high: int


def tile_length(window: np.ndarray) -> int:
    """How many pixels lie side by side in a tile, at most: so few that their windows (P,) are much the same."""
    away = np.arange(len(window)) - len(window) // 2
    # Of a hard window the variance of a place is (P² - 1) / 12.
    wide = np.sqrt(1 + 12 * (window @ away**2) / window.sum())
    return 1 if wide < 5 - 1e-6 else min(LONGEST, int((wide - 1 + 1e-6) / 2))


def tilings(
    machine: PatchMachine, patch_size: int, window: np.ndarray | None = None, response: np.ndarray | None = None
) -> Iterator[Tiles]:
    """The tiles of all pixels of a machine; those that copy from one location only have one candidate in an image.

    Windows are hard, and responses those of the centre only, if not given: see `Tiles`.
    """
    height, width = machine.images.shape[2:]
    circular = machine.padding_mode == "circular"
    window = np.ones(patch_size, np.float32) if window is None else window
    response = np.ones(1, np.float32) if response is None else response
    for rows in _axes(machine, height, window):
        for columns in _axes(machine, width, window):
            yield _tiles(rows, columns, (height, width), window, response, circular)


def _axes(machine: PatchMachine, extent: int, window: np.ndarray) -> list[_Axis]:
    found = []
    most = tile_length(window)
    for part, pooled in machine._axis(extent, len(window) // 2):
        indices = part.cpu().numpy()
        for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
            low, high = int(run[0]), int(run[-1]) + 1
            if pooled and len(run) > 1:
                length = -(-len(run) // -(-len(run) // most))
                begins = np.arange(low - length + 1, high)
                if machine.padding_mode == "circular":
                    begins = run
                found.append(_Axis(np.arange(low, high, length), begins, length, low, high))
            else:
                parts = np.array_split(run, -(-len(run) // MOST))
                found.extend(_Axis(few[:1], few[:1], len(few), int(few[0]), int(few[-1]) + 1) for few in parts)
    return found


def _tiles(
    rows: _Axis,
    columns: _Axis,
    extent: tuple[int, int],
    window: np.ndarray,
    response: np.ndarray,
    circular: bool,
) -> Tiles:
    patch_size = len(window)
    radius = patch_size // 2

    def regions(down: np.ndarray, across: np.ndarray) -> np.ndarray:
        """(location, region) pixels of the regions that begin at these places."""
        sides = []
        for begins, length, whole in ((down, rows.length, extent[0]), (across, columns.length, extent[1])):
            places = begins[:, None] + np.arange(-radius, length + radius)
            sides.append(places % whole if circular else np.where((places >= 0) & (places < whole), places, -1))
        y, x = sides[0][:, None, :, None], sides[1][None, :, None, :]
        return np.where((y >= 0) & (x >= 0), y * extent[1] + x, -1).reshape(len(down) * len(across), -1)

    def inside(axis: _Axis, begins: np.ndarray) -> np.ndarray:
        """(location, place) whether a place of a tile that begins there may be copied."""
        places = begins[:, None] + np.arange(axis.length)
        return (places >= axis.low) & (places < axis.high)

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a[:, None, :, None] & b[None, :, None, :]).reshape(len(a) * len(b), -1)

    y = (rows.tiles[:, None] + np.arange(rows.length))[:, None, :, None]
    x = (columns.tiles[:, None] + np.arange(columns.length))[None, :, None, :]
    own = both(inside(rows, rows.tiles), inside(columns, columns.tiles))
    pixels = np.where(own, (y * extent[1] + x).reshape(own.shape), -1)
    below, beside = inside(rows, rows.candidates), inside(columns, columns.candidates)
    if circular:
        below[:] = beside[:] = True
    shares = []
    for axis in (rows, columns):
        covered = np.zeros(axis.length + patch_size - 1)
        for place in range(axis.length):
            covered[place : place + patch_size] += window / axis.length
        shares.append(covered)
    root = np.sqrt(np.outer(*shares)).astype(np.float32).ravel()
    table = regions(rows.candidates, columns.candidates)
    origins = (rows.candidates[:, None] - radius) * extent[1] + columns.candidates - radius
    return Tiles(
        patch_size,
        (rows.length, columns.length),
        regions(rows.tiles, columns.tiles),
        pixels,
        table,
        below,
        beside,
        np.empty(0, np.int64) if circular else origins.ravel(),
        np.flatnonzero((table < 0).all(axis=0)),
        root,
        window,
        response,
    )
