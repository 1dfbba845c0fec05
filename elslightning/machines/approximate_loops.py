"""The compiled loops that average: sums over the candidates that tiles of pixels look at, with their spread. Weights
are powers of two: their logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.choosing_loops import choose_candidates, choose_cells
from elslightning.machines.compiling import compiled, inner
from elslightning.machines.distance_loops import tile_distances
from elslightning.machines.index_loops import take_patches
from elslightning.machines.lanes import PART, exp2_part, greater_part, least, load_part, splat_part, store
from elslightning.machines.region_loops import prefetch, take_regions
from elslightning.machines.scanning_loops import SCANNED

BARRED = np.float32(1e30)
"""Lowers the log-weight of what is no candidate of a pixel."""
_BARELY = np.float32(1e29)
LINE = 64
"""Bytes of a line of the cache."""
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
            if lowest > _BARELY:
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
            away = weight * spread
            weight = weight * once
            square = away * away
            _add(sums, first + 1, weight)
            store(sums, first + 2, greater_part(load_part(sums, first + 2), away))
            _add(sums, first + 3, square)
            for c in range(channels):
                into = first + FIXED + PER_CHANNEL * c
                value = load_part(block, (c * height + y + radius) * width + x + radius)
                weighed = weight * value
                _add(sums, into, weighed)
                _add(sums, into + 1, weighed * value)
                weighed = square * value
                _add(sums, into + 2, weighed)
                _add(sums, into + 3, weighed * value)


@inner
def _gather(tops: Any, sums: Any, into: Any) -> None:
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
    expected: Any,
    bits: Any,
    along: Any,
    asked: Any,
    looked: Any,
    draws: Any,
    sizes: Any,
    logs: Any,
    chances: Any,
    centres: Any,
    steps: Any,
    begins: Any,
    codes: Any,
    numbers: Any,
    firsts: Any,
    offsets: Any,
    seed: Any,
    dice: Any,
    bank: Any,
    members: Any,
    table: Any,
    origins: Any,
    beyond: Any,
    below: Any,
    beside: Any,
    levels: Any,
    shape: Any,
    across: int,
    signal: Any,
    rate: Any,
    sums: Any,
    outside: Any,
    promised: Any,
) -> int:
    """Chooses what each tile looks at, and adds it to its `sums` (tile, pixel, column). Returns how many candidates.

    Args:
        expected, bits: (tile, cell) float32 as in `choose_cells`; lost.
        along: (tile, direction) as in `choose_candidates`.
        asked: (tile, 2, K) float32, see `tile_distances`.
        looked, draws: (tile,) how many candidates to go through, and how many to look at; without entries, all.
        sizes, logs, chances, centres, steps, begins, codes, numbers, firsts, offsets, seed, dice: as in `choose_cells`
            and `choose_candidates`, `begins` as `places`.
        bank, members, table, levels, signal: as in `take_patches`.
        origins: (location,) where in an image the region around a location begins, if it lies in the image as it is:
            the bank is of bytes then, with an image more at either end; otherwise without entries.
        beyond: as in `take_regions`.
        below, beside: (row of locations, row of a tile) and (column of locations, column of a tile) 0 where that row or
            column of a region is made of candidates, and otherwise `BARRED`, float32.
        shape: height and width of a region, rows and columns of its tile, patch size.
        across: pixels of a row of an image.
        rate: by which a squared distance lowers the logarithm of a weight.
        outside, promised: (tile,) become the part of what is expected that is in candidates which were not looked at,
            and the logarithm of all of it.
    """
    channels = bank.shape[1]
    height, width, rows, columns, size = shape
    dim, pixels, locations = channels * height * width, rows * columns, len(table)
    block = np.empty((dim + PART, PART), np.float32)
    barred = np.empty((rows + columns, PART), np.float32)
    tops = np.empty(pixels, np.float32)
    parts = np.empty((pixels * sums.shape[2], PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    over = np.empty((2, PART), np.float32)
    places, drawn = np.empty(PART, np.int64), np.empty(PART, np.int64)
    reach = (height - 1) * across + width
    near, far, counts = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    probable = np.empty(len(sizes), np.float32)
    everything = len(draws) == 0
    most = len(numbers) if everything else int(looked.max()) + len(sizes) + int(draws.max())
    scores = np.empty(0 if everything else most + SCANNED, np.uint8)
    chosen, likely = np.empty(0 if everything else most, np.int32), np.empty(0 if everything else most, np.float32)
    spots = np.empty(most if len(origins) else 0, np.int64)
    memory, plane = bank.reshape(-1), bank.shape[2]
    factor = signal / np.float32(127.5)
    done = 0
    for tile in range(len(asked)):
        found = len(numbers)
        outside[tile], promised[tile] = 0.0, -np.inf
        if not everything:
            close, apart, left, outside[tile], promised[tile] = choose_cells(
                expected[tile],
                bits[tile],
                sizes,
                logs,
                looked[tile],
                np.float32(draws[tile]),
                chances,
                near,
                far,
                counts,
                probable,
            )
            found, missed = choose_candidates(
                near[:close],
                far[:apart],
                counts,
                probable,
                along[tile],
                centres,
                steps,
                rate,
                signal,
                begins,
                codes,
                numbers,
                firsts,
                offsets,
                left,
                seed,
                dice,
                scores,
                chosen,
                likely,
            )
            outside[tile] += (1 - outside[tile]) * missed
        done += found
        tops[:] = -BARRED
        parts[:] = np.float32(0.0)
        if len(origins):
            for k in range(found):
                number = k if everything else chosen[k]
                spots[k] = (members[number // locations] + 1) * channels * plane + origins[number % locations]
        for start in range(0, found, PART):
            here = min(PART, found - start)
            for j in range(PART):
                at = start + min(j, here - 1)
                number = at if everything else chosen[at]
                chance = np.float32(1.0) if everything else likely[at]
                drawn[j] = number
                location = number % locations
                over[0, j] = np.float32(1.0) / chance
                over[1, j] = np.sqrt(np.float32(1.0) - chance) / chance
                for y in range(rows):
                    barred[y, j] = below[location // len(beside), y] if j < here else BARRED
                for x in range(columns):
                    barred[rows + x, j] = beside[location % len(beside), x]
            if len(origins):
                for j in range(PART):
                    places[j] = spots[start + min(j, here - 1)]
                # Those of the next block are fetched while this one is worked on.
                for k in range(start + PART, min(start + 2 * PART, found)):
                    for c in range(channels):
                        for line in range(0, reach, LINE):
                            prefetch(memory, spots[k] + c * plane + line)
                take_regions(memory, places, across, plane, (channels, height, width), beyond, factor, -signal, block)
            else:
                take_patches(bank, members, table, drawn, levels, signal, block[:dim].T)
            tile_distances(asked[tile], block, channels, height, width, rows, columns, size, lines, distances)
            _add_block(tops, parts, distances, block, barred, over, shape, channels, rate)
        _gather(tops, parts, sums[tile])
    return done
