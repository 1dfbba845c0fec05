"""The compiled loops that average: sums over the candidates that tiles of pixels look at, with their spread. Weights
are powers of two: their logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.choosing_loops import choose_candidates, choose_cells
from elslightning.machines.compiling import compiled, inner
from elslightning.machines.index_loops import take_patches
from elslightning.machines.lanes import PART, exp2_part, least, load_part, splat_part, spread_part, store, total
from elslightning.machines.region_loops import take_regions

BARRED = np.float32(1e30)
"""Lowers the log-weight of what is no candidate of a pixel."""
_BARELY = np.float32(1e29)
NOTHING = 40.0
"""What is so many powers of two below the greatest weight is not counted."""
FIXED, PER_CHANNEL = 4, 4
"""Columns of the sums of a pixel: the greatest log-weight, and relative to it the weight, the heaviest draw, and the
first coefficient of a spread, Σ w² (1 - p)/p² with the probability p of each draw; then for each channel the sums of
w v and w v² over p, and of w² v and w² v² like the spread."""


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
def _distances(
    asked: Any,
    block: Any,
    channels: int,
    height: int,
    width: int,
    rows: int,
    columns: int,
    size: int,
    squares: Any,
    lines: Any,
    distances: Any,
) -> None:
    """Squared distances between a region and `PART` others, of `rows` times `columns` windows side by side: into
    `distances` (pixel, PART).

    `asked` (2, K): (c, 2 q - c) for each number q of the region, see `elslightning.machines.loops`; `block` (K, PART).
    `squares` (width, PART) and `lines` (height · columns, PART) are for work.
    """
    dim = asked.shape[1]
    for y in range(height):
        for x in range(width):
            square = splat_part(np.float32(0.0))
            for c in range(channels):
                k = (c * height + y) * width + x
                p = load_part(block, k)
                square = square + (spread_part(asked, k) - p) * (spread_part(asked, dim + k) - p)
            store(squares, x, square)
        _slide(squares, 0, 1, columns, size, lines, y * columns, 1)
    for x in range(columns):
        _slide(lines, x, columns, rows, size, distances, x, columns)


@inner
def _raise_top(sums: Any, top: Any) -> None:
    """Makes the sums of a pixel relative to another log-weight, a greater one."""
    scale = 2.0 ** max(sums[0] - top, -1000.0) if sums[1] > 0.0 else 0.0
    sums[0] = top
    sums[1] *= scale
    sums[2] *= scale
    sums[3] *= scale * scale
    for at in range(FIXED, len(sums), PER_CHANNEL):
        sums[at] *= scale
        sums[at + 1] *= scale
        sums[at + 2] *= scale * scale
        sums[at + 3] *= scale * scale


@inner
def _add_block(
    sums: Any, distances: Any, block: Any, barred: Any, over: Any, shape: Any, channels: int, rate: Any
) -> None:
    """Adds `PART` candidates to the sums of a tile's pixels (pixel, column). `over` (2, PART): of each, 1/p and
    sqrt(1 - p)/p of its probability p."""
    height, width, rows, columns, size = shape
    radius = size // 2
    speed = splat_part(rate)
    once, spread = load_part(over, 0), load_part(over, 1)
    for y in range(rows):
        for x in range(columns):
            pixel = y * columns + x
            lowered = load_part(distances, pixel) * speed + load_part(barred, pixel)
            lowest = least(lowered)
            if lowest > _BARELY:
                continue
            into = sums[pixel]
            if -lowest < into[0] - NOTHING:
                continue
            if -lowest > into[0]:
                _raise_top(into, -lowest)
            weight = exp2_part(splat_part(np.float32(-into[0])) - lowered)
            away = weight * spread
            weight = weight * once
            into[1] += total(weight)
            into[2] = max(into[2], -least(splat_part(np.float32(0.0)) - away))
            square = away * away
            into[3] += total(square)
            for c in range(channels):
                at = FIXED + PER_CHANNEL * c
                value = load_part(block, (c * height + y + radius) * width + x + radius)
                weighed = weight * value
                into[at] += total(weighed)
                into[at + 1] += total(weighed * value)
                weighed = square * value
                into[at + 2] += total(weighed)
                into[at + 3] += total(weighed * value)


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
    valid: Any,
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
        asked: (tile, 2, K) float32, see `_distances`.
        looked, draws: (tile,) how many candidates to go through, and how many to look at; without entries, all.
        sizes, logs, chances, centres, steps, codes, numbers, firsts, offsets, seed, dice: as in `choose_cells` and
            `choose_candidates`.
        bank, members, table, levels, signal: as in `take_patches`.
        origins: (location,) where in an image the region around a location begins, if it lies in the image as it is:
            the bank is of bytes then, with an image more at either end; otherwise without entries.
        beyond: as in `take_regions`.
        valid: (location, pixel) whether that pixel of the region around a location is a candidate.
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
    barred = np.empty((pixels, PART), np.float32)
    squares = np.empty((width, PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    over = np.empty((2, PART), np.float32)
    places, drawn = np.empty(PART, np.int64), np.empty(PART, np.int64)
    near, far, counts = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    probable = np.empty(len(sizes), np.float32)
    everything = len(draws) == 0
    most = len(numbers) if everything else int(looked.max()) + len(sizes) + int(draws.max())
    scores = np.empty(0 if everything else most + PART, np.float32)
    chosen, likely = np.empty(0 if everything else most, np.int32), np.empty(0 if everything else most, np.float32)
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
                for pixel in range(pixels):
                    barred[pixel, j] = np.float32(0.0) if valid[location, pixel] and j < here else BARRED
                if len(origins):
                    places[j] = (members[number // locations] + 1) * channels * plane + origins[location]
            if len(origins):
                take_regions(memory, places, across, plane, (channels, height, width), beyond, factor, -signal, block)
            else:
                take_patches(bank, members, table, drawn, levels, signal, block[:dim].T)
            _distances(asked[tile], block, channels, height, width, rows, columns, size, squares, lines, distances)
            _add_block(sums[tile], distances, block, barred, over, shape, channels, rate)
    return done
