"""The compiled loops that average: sums over the candidates that tiles of pixels look at, with their spread. Weights
are powers of two: their logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.distance_loops import tile_distances
from elslightning.machines.lanes import PART, exp2_part, greater_part, least, load_part, splat_part, store
from elslightning.machines.region_loops import BARRED, locate, make_room, take_block

BARELY = np.float32(1e29)
"""What is lowered by more is no candidate at all."""
NOTHING = np.float32(40.0)
"""What is so many powers of two below the greatest weight is not counted."""
FIXED, PER_CHANNEL = 4, 4
"""Columns of the sums of a pixel: the greatest log-weight, and relative to it the weight, the heaviest draw, and the
first coefficient of a spread, Σ w² (1 - p)/p² with the probability p of each draw; then for each channel the sums of
w v and w v² over p, and of w² v and w² v² like the spread."""


@inner
def _raise_top(sums: Any, first: int, columns: int, scale: Any) -> None:
    """Makes the sums of a pixel relative to a greater log-weight."""
    once, twice = splat_part(scale), splat_part(scale * scale)
    for column in range(1, columns):
        squared = column == 3 or (column >= FIXED and (column - FIXED) % PER_CHANNEL >= 2)
        if squared:
            store(sums, first + column, load_part(sums, first + column) * twice)
        else:
            store(sums, first + column, load_part(sums, first + column) * once)


@inner
def _add(sums: Any, row: int, values: Any) -> None:
    store(sums, row, load_part(sums, row) + values)


@inner
def add_weighed(
    sums: Any, first: int, weight: Any, away: Any, block: Any, place: int, plane: int, channels: int
) -> None:
    """Adds `PART` candidates to the sums of a pixel, from row `first` on: their weights over p, and those times
    sqrt(1 - p)/p; their values are in row `place` of `block`, those of the next channel `plane` rows after it."""
    square = away * away
    _add(sums, first + 1, weight)
    store(sums, first + 2, greater_part(load_part(sums, first + 2), away))
    _add(sums, first + 3, square)
    for c in range(channels):
        into = first + FIXED + PER_CHANNEL * c
        value = load_part(block, c * plane + place)
        weighed = weight * value
        _add(sums, into, weighed)
        _add(sums, into + 1, weighed * value)
        weighed = square * value
        _add(sums, into + 2, weighed)
        _add(sums, into + 3, weighed * value)


@inner
def _add_block(
    tops: Any, sums: Any, distances: Any, block: Any, barred: Any, over: Any, shape: Any, channels: int, rate: Any
) -> None:
    """Adds `PART` candidates to the sums of a tile's pixels: `sums` (pixel · column, PART), relative to the greatest
    log-weights `tops` (pixel,). `barred` (rows + columns, PART) is above 0 for what is no candidate of a row of the
    tile, or of a column; `over` (2, PART): of each, 1/p and sqrt(1 - p)/p of its probability p."""
    height, width, rows, columns, size = shape
    radius, wide = size // 2, FIXED + PER_CHANNEL * channels
    speed = splat_part(rate)
    once, spread = load_part(over, 0), load_part(over, 1)
    for y in range(rows):
        for x in range(columns):
            pixel = y * columns + x
            lowered = load_part(distances, pixel) * speed + load_part(barred, y) + load_part(barred, rows + x)
            lowest = least(lowered)
            if lowest > BARELY:
                continue
            top = tops[pixel]
            if -lowest < top - NOTHING:
                continue
            first = pixel * wide
            if -lowest > top:
                scale = np.float32(2.0) ** max(top + lowest, np.float32(-120.0))
                _raise_top(sums, first, wide, scale)
                tops[pixel] = top = -lowest
            weight = exp2_part(splat_part(-top) - lowered)
            place = (y + radius) * width + x + radius
            add_weighed(sums, first, weight * once, weight * spread, block, place, height * width, channels)


@inner
def gather(tops: Any, sums: Any, into: Any) -> None:
    """The sums over all lanes, into (pixel, column) float64."""
    pixels, columns = into.shape
    for pixel in range(pixels):
        into[pixel, 0] = tops[pixel]
        for column in range(1, columns):
            into[pixel, column] = 0.0
            for k in range(PART):
                value = np.float64(sums[pixel * columns + column, k])
                into[pixel, column] = max(into[pixel, column], value) if column == 2 else into[pixel, column] + value


@compiled
def average_tiles(
    numbers: Any,
    likely: Any,
    starts: Any,
    counts: Any,
    asked: Any,
    source: Any,
    shape: Any,
    across: int,
    signal: Any,
    rate: Any,
    sums: Any,
) -> None:
    """Adds to the `sums` (tile, pixel, column) of each tile the candidates that it looks at.

    Args:
        numbers, likely, starts, counts: as `choose_tiles` finds them.
        asked: (tile, 2, K) float32, see `tile_distances`.
        source, shape, across, signal: as in `take_block`.
        rate: by which a squared distance lowers the logarithm of a weight.
    """
    channels = source[0].shape[1]
    height, width, rows, columns, size = shape
    pixels = rows * columns
    room = make_room(channels, shape, counts)
    block, barred, over = room[:3]
    tops = np.empty(pixels, np.float32)
    parts = np.empty((pixels * sums.shape[2], PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    for tile in range(len(asked)):
        tops[:] = -BARRED
        parts[:] = np.float32(0.0)
        first, found = starts[tile], counts[tile]
        locate(numbers, first, found, source, room)
        for start in range(0, found, PART):
            take_block(numbers, likely, first, start, found, source, shape, across, signal, room)
            tile_distances(asked[tile], block, channels, height, width, rows, columns, size, lines, distances)
            _add_block(tops, parts, distances, block, barred, over, shape, channels, rate)
        gather(tops, parts, sums[tile])
