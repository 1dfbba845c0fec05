"""The compiled loops of squared distances between a region of an image and others, for all windows in it at once."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import inner
from elslightning.machines.lanes import load_part, splat_part, spread_part, store


@inner
def _slide(values: Any, first: int, step: int, count: int, size: int, sums: Any, to: int, apart: int) -> None:
    """Sums of `size` rows, `step` apart, that begin at each of `count` <= `size` rows one after the other, into rows
    `apart` of `sums`. What all have in common is added once, and nothing is ever subtracted."""
    common = splat_part(np.float32(0.0))
    for k in range(count - 1, size):
        common = common + load_part(values, first + k * step)
    store(sums, to + (count - 1) * apart, common)
    for k in range(count - 2, -1, -1):
        common = common + load_part(values, first + k * step)
        store(sums, to + k * apart, common)
    after = splat_part(np.float32(0.0))
    for k in range(1, count):
        after = after + load_part(values, first + (size + k - 1) * step)
        store(sums, to + k * apart, load_part(sums, to + k * apart) + after)


@inner
def _square(asked: Any, block: Any, place: int, plane: int, channels: int, added: Any) -> Any:
    """Adds the squared differences of a pixel, over its channels."""
    dim = asked.shape[1]
    for k in range(place, place + channels * plane, plane):
        p = load_part(block, k)
        added = added + (spread_part(asked, k) - p) * (spread_part(asked, dim + k) - p)
    return added


@inner
def tile_distances(
    asked: Any,
    block: Any,
    channels: int,
    height: int,
    width: int,
    rows: int,
    columns: int,
    size: int,
    lines: Any,
    distances: Any,
) -> None:
    """Squared distances between a region and `PART` others, of `rows` times `columns` windows side by side: into
    `distances` (pixel, PART).

    `asked` (2, K): (c, 2 q - c) for each number q of the region, see `elslightning.machines.loops`; `block` (K, PART).
    `lines` (height · columns, PART) is for work.
    """
    plane = height * width
    for y in range(height):
        # As `_slide`, of squares that are made on the way.
        first, into = y * width, y * columns
        common = splat_part(np.float32(0.0))
        for x in range(columns - 1, size):
            common = _square(asked, block, first + x, plane, channels, common)
        store(lines, into + columns - 1, common)
        for x in range(columns - 2, -1, -1):
            common = _square(asked, block, first + x, plane, channels, common)
            store(lines, into + x, common)
        after = splat_part(np.float32(0.0))
        for x in range(1, columns):
            after = _square(asked, block, first + size + x - 1, plane, channels, after)
            store(lines, into + x, load_part(lines, into + x) + after)
    for x in range(columns):
        _slide(lines, x, columns, rows, size, distances, x, columns)


@inner
def faded_distances(
    asked: Any,
    block: Any,
    channels: int,
    height: int,
    width: int,
    rows: int,
    columns: int,
    window: Any,
    squares: Any,
    lines: Any,
    distances: Any,
) -> None:
    """As `tile_distances`, with windows whose pixels count by `window` (P,) along either axis; `squares` (width, PART)
    is for work, too."""
    plane, size = height * width, len(window)
    for y in range(height):
        for x in range(width):
            store(squares, x, _square(asked, block, y * width + x, plane, channels, splat_part(np.float32(0.0))))
        for x in range(columns):
            found = splat_part(np.float32(0.0))
            for k in range(size):
                found = found + load_part(squares, x + k) * splat_part(window[k])
            store(lines, y * columns + x, found)
    for y in range(rows):
        for x in range(columns):
            found = splat_part(np.float32(0.0))
            for k in range(size):
                found = found + load_part(lines, (y + k) * columns + x) * splat_part(window[k])
            store(distances, y * columns + x, found)
