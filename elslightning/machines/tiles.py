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
        root: (region,) float32: square roots of the share of windows that a pixel of the region lies in.
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


def tile_length(patch_size: int) -> int:
    """How many pixels lie side by side in a tile, at most: so few that their windows are much the same."""
    return 1 if patch_size < 5 else min(LONGEST, (patch_size - 1) // 2)


def tilings(machine: PatchMachine, patch_size: int) -> Iterator[Tiles]:
    """The tiles of all pixels of a machine; those that copy from one location only have one candidate in an image."""
    height, width = machine.images.shape[2:]
    circular = machine.padding_mode == "circular"
    for rows in _axes(machine, height, patch_size):
        for columns in _axes(machine, width, patch_size):
            yield _tiles(rows, columns, (height, width), patch_size, circular)


def _axes(machine: PatchMachine, extent: int, patch_size: int) -> list[_Axis]:
    found = []
    most = tile_length(patch_size)
    for part, pooled in machine._axis(extent, patch_size // 2):
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


def _tiles(rows: _Axis, columns: _Axis, extent: tuple[int, int], patch_size: int, circular: bool) -> Tiles:
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
            covered[place : place + patch_size] += 1 / axis.length
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
    )
