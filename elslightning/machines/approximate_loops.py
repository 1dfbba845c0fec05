"""The compiled loops that draw: sums over the candidates that tiles of pixels look at, with their spread. Weights are
powers of two: their logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.index_loops import take_regions
from elslightning.machines.lanes import PART, exp2_part, least, load_part, splat_part, spread_part, store, total

BARRED = np.float32(1e30)
"""Lowers the log-weight of what is no candidate of a pixel."""
_BARELY = np.float32(1e29)
NOTHING = 40.0
"""What is so many powers of two below the greatest weight is not counted."""
PER_CHANNEL = 4
"""Sums of a visit for each channel: those of w v, w² v, w² v² and w v²."""


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
def _lower(into: Any, top: Any, channels: int) -> None:
    """Makes the sums of a visit relative to another log-weight, a greater one."""
    scale = 2.0 ** max(into[0] - top, -1000.0) if into[1] > 0.0 else 0.0
    into[0] = top
    into[1] *= scale
    into[2] *= scale * scale
    for c in range(channels):
        at = 3 + PER_CHANNEL * c
        into[at] *= scale
        into[at + 1] *= scale * scale
        into[at + 2] *= scale * scale
        into[at + 3] *= scale


@inner
def _add_block(
    found: Any,
    distances: Any,
    block: Any,
    barred: Any,
    channels: int,
    height: int,
    width: int,
    rows: int,
    columns: int,
    size: int,
    rate: Any,
    partly: bool,
) -> None:
    """Adds `PART` candidates to the sums of a visit, `found` (pixel, 3 + 4 channel): the greatest log-weight, relative
    to which those of w, w², and for each channel w v, w² v, w² v², w v² are. Squares of weights only where `partly`."""
    radius = size // 2
    speed = splat_part(rate)
    for y in range(rows):
        for x in range(columns):
            pixel = y * columns + x
            distance = load_part(distances, pixel)
            lowered = distance * speed + load_part(barred, pixel)
            lowest = least(lowered)
            if lowest > _BARELY:
                continue
            into = found[pixel]
            if -lowest < into[0] - NOTHING:
                continue
            if -lowest > into[0]:
                _lower(into, -lowest, channels)
            weight = exp2_part(splat_part(np.float32(-into[0])) - lowered)
            into[1] += total(weight)
            square = weight * weight
            if partly:
                into[2] += total(square)
            for c in range(channels):
                at = 3 + 4 * c
                value = load_part(block, (c * height + y + radius) * width + x + radius)
                weighed = weight * value
                into[at] += total(weighed)
                into[at + 3] += total(weighed * value)
                if partly:
                    weighed = square * value
                    into[at + 1] += total(weighed)
                    into[at + 2] += total(weighed * value)


@inner
def _conclude(found: Any, channels: int, count: int, size: int, chance: Any, into: Any, tops: Any, weights: Any) -> Any:
    """Adds a visit's sums, of `count` draws without replacement from a cell of `size` that is visited with some
    probability, to those of its tile.

    `into` (pixel, 5 + 4 channel): the greatest log-weight, relative to which the weight, the heaviest draw, and the
    coefficients of the variance of the sum of w (v - m) are, a quadratic polynomial in m: that within the cell, and,
    after Horvitz and Thompson, that of whether it is visited. Returns which part of the spread the cell has, N sqrt(E
    w²) over the weight as it was known before, as a mean over pixels: `weights` (pixel,), relative to `tops` (pixel,).
    """
    part = 0.0
    scale = size / (count * chance)
    whole = count == size and chance == 1.0
    within = scale * scale * (1 - count / size) * count / (count - 1) if 1 < count < size else 0.0
    between = scale * scale * (1 - chance)
    both = between - within / count
    for pixel in range(len(found)):
        sums, mine = found[pixel], into[pixel]
        if sums[1] == 0.0:
            continue
        if sums[0] > mine[0]:
            down = 2.0 ** max(mine[0] - sums[0], -1000.0) if mine[1] > 0.0 else 0.0
            mine[0] = sums[0]
            mine[1] *= down
            mine[2] *= down
            mine[3] *= down * down
            for c in range(channels):
                at = 4 + PER_CHANNEL * c
                mine[at] *= down
                mine[at + 1] *= down
                mine[at + 2] *= down * down
                mine[at + 3] *= down * down
        weight, square = sums[1], sums[2]
        spread = size * np.sqrt(square / count) if count < size else weight
        rise = 2.0 ** min(mine[0] - tops[pixel], 60.0) if mine[0] > tops[pixel] else 1.0
        part += spread * rise / weights[pixel] if weights[pixel] > 0.0 else 0.0
        mine[1] += scale * weight
        for c in range(channels):
            mine[4 + 4 * c] += scale * sums[3 + 4 * c]
            mine[5 + 4 * c] += scale * sums[6 + 4 * c]
        if whole:
            continue
        heaviest = np.sqrt(square) if count < size else weight
        mine[2] = max(mine[2], scale * heaviest)
        mine[3] += within * square + both * weight * weight
        for c in range(channels):
            value = sums[3 + 4 * c]
            mine[6 + 4 * c] += within * sums[4 + 4 * c] + both * weight * value
            mine[7 + 4 * c] += within * sums[5 + 4 * c] + both * value * value
    return part / len(found)


@compiled
def add_visits(
    order: Any,
    starts: Any,
    queries: Any,
    counts: Any,
    probable: Any,
    asked: Any,
    bank: Any,
    members: Any,
    table: Any,
    valid: Any,
    levels: Any,
    numbers: Any,
    firsts: Any,
    offsets: Any,
    shape: Any,
    signal: Any,
    rate: Any,
    weights: Any,
    sums: Any,
    seen: Any,
) -> int:
    """Draws what all visits ask for, and adds it to the sums of their tiles, see `_conclude`. Returns how many draws.

    Args:
        order, starts: of visits, cell by cell; `queries`, `counts` and `probable` are theirs.
        asked: (tile, 2, K) float32, see `_distances`.
        bank, members, table, levels: as in `take_patches`.
        valid: (location, pixel) whether that pixel of the region around a location is a candidate.
        numbers: all regions, cell by cell, from `firsts` (cell + 1,); the draws of each begin at `offsets` (cell,).
        shape: height and width of a region, rows and columns of its tile, patch size.
        signal: what pixels of the bank are multiplied with.
        rate: by which a squared distance lowers the logarithm of a weight.
        weights: (tile, pixel) the whole weight as it was known before, relative to the log-weight that `sums` begin
            with.
        seen: (visit,) becomes which part of it each visit's cell has, see `_conclude`.
    """
    channels = bank.shape[1]
    height, width, rows, columns, size = shape
    dim, pixels = asked.shape[2], rows * columns
    scaled = signal * levels
    drawn = np.empty(PART, np.int64)
    block = np.empty((dim, PART), np.float32)
    barred = np.empty((pixels, PART), np.float32)
    squares = np.empty((width, PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    found = np.empty((0, pixels, 3 + PER_CHANNEL * channels))
    tops = sums[:, :, 0].copy()
    draws = 0
    for cell in range(len(starts) - 1):
        visits = order[starts[cell] : starts[cell + 1]]
        if len(visits) == 0:
            continue
        if len(visits) > len(found):
            found = np.empty((2 * len(visits), pixels, 3 + PER_CHANNEL * channels))
        for v in range(len(visits)):
            found[v] = 0.0
            found[v, :, 0] = sums[queries[visits[v]], :, 0]
        population = firsts[cell + 1] - firsts[cell]
        for start in range(0, counts[visits[0]], PART):
            here = min(PART, population - start)
            for j in range(PART):
                drawn[j] = numbers[firsts[cell] + (offsets[cell] + start + min(j, here - 1)) % population]
            take_regions(bank, members, table, drawn, scaled, signal, block)
            for j in range(PART):
                location = drawn[j] % len(table)
                for pixel in range(pixels):
                    barred[pixel, j] = np.float32(0.0) if valid[location, pixel] and j < here else BARRED
            for v in range(len(visits)):
                count = counts[visits[v]]
                if count <= start:
                    break
                _distances(
                    asked[queries[visits[v]]],
                    block,
                    channels,
                    height,
                    width,
                    rows,
                    columns,
                    size,
                    squares,
                    lines,
                    distances,
                )
                _add_block(
                    found[v],
                    distances,
                    block,
                    barred,
                    channels,
                    height,
                    width,
                    rows,
                    columns,
                    size,
                    rate,
                    count < population,
                )
                draws += here
        for v in range(len(visits)):
            visit = visits[v]
            query, chance = queries[visit], np.float64(probable[visit])
            into = sums[query]
            seen[visit] = _conclude(
                found[v], channels, counts[visit], population, chance, into, tops[query], weights[query]
            )
    return draws
