"""The compiled loops that draw: sums over the candidates that tiles of pixels look at, with their spread. Weights are
powers of two: their logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.index_loops import take_patches
from elslightning.machines.lanes import PART, exp2_part, least, load_part, splat_part, spread_part, store, total

BARRED = np.float32(1e30)
"""Lowers the log-weight of what is no candidate of a pixel."""
_BARELY = np.float32(1e29)
NOTHING = 40.0
"""What is so many powers of two below the greatest weight is not counted."""
FIXED, PER_CHANNEL = 4, 4
"""Columns of the sums of a pixel, over what a visit draws or over all that a tile does: the greatest log-weight, and
relative to it the weight, the heaviest draw, and the first coefficient of a spread; then for each channel the sums of
w v and w v², and two further coefficients. Of a visit these are the sums of w², w² v and w² v²."""


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
    """Adds `PART` candidates to the sums of a visit, `found` (pixel, column); squares of weights only if `partly`."""
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
                _raise_top(into, -lowest)
            weight = exp2_part(splat_part(np.float32(-into[0])) - lowered)
            into[1] += total(weight)
            square = weight * weight
            if partly:
                into[3] += total(square)
            for c in range(channels):
                at = FIXED + PER_CHANNEL * c
                value = load_part(block, (c * height + y + radius) * width + x + radius)
                weighed = weight * value
                into[at] += total(weighed)
                into[at + 1] += total(weighed * value)
                if partly:
                    weighed = square * value
                    into[at + 2] += total(weighed)
                    into[at + 3] += total(weighed * value)


@inner
def _conclude(found: Any, count: int, size: int, chance: Any, into: Any, tops: Any, weights: Any) -> Any:
    """Adds a visit's sums (pixel, column), of `count` draws without replacement from a cell of `size` that is visited
    with some probability, to those of its tile, `into`.

    Its coefficients are of the variance of the sum of w (v - m), a quadratic polynomial in m: that within the cell, and
    that of whether it is visited, after Horvitz and Thompson. Returns which part of the spread the cell has, N sqrt(E
    w²) over the weight as it was known before, as a mean over pixels: `weights` (pixel,), relative to `tops` (pixel,).
    """
    part = 0.0
    scale = size / (count * chance)
    within = scale * scale * (1 - count / size) * count / (count - 1) if 1 < count < size else 0.0
    both = scale * scale * (1 - chance) - within / count
    for pixel in range(len(found)):
        sums, mine = found[pixel], into[pixel]
        weight, square = sums[1], sums[3]
        if weight == 0.0:
            continue
        if sums[0] > mine[0]:
            _raise_top(mine, sums[0])
        spread = size * np.sqrt(square / count) if count < size else weight
        rise = 2.0 ** min(mine[0] - tops[pixel], 60.0) if mine[0] > tops[pixel] else 1.0
        part += spread * rise / weights[pixel] if weights[pixel] > 0.0 else 0.0
        mine[1] += scale * weight
        for at in range(FIXED, len(mine), PER_CHANNEL):
            mine[at] += scale * sums[at]
            mine[at + 1] += scale * sums[at + 1]
        if count == size and chance == 1.0:
            continue
        mine[2] = max(mine[2], scale * (np.sqrt(square) if count < size else weight))
        mine[3] += within * square + both * weight * weight
        for at in range(FIXED, len(mine), PER_CHANNEL):
            value = sums[at]
            mine[at + 2] += within * sums[at + 2] + both * weight * value
            mine[at + 3] += within * sums[at + 3] + both * value * value
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
        bank, members, table, levels, signal: as in `take_patches`.
        valid: (location, pixel) whether that pixel of the region around a location is a candidate.
        numbers: all regions, cell by cell, from `firsts` (cell + 1,); the draws of each begin at `offsets` (cell,).
        shape: height and width of a region, rows and columns of its tile, patch size.
        rate: by which a squared distance lowers the logarithm of a weight.
        weights: (tile, pixel) the whole weight as it was known before, relative to the log-weight that `sums` begin
            with.
        seen: (visit,) becomes which part of it each visit's cell has, see `_conclude`.
    """
    channels = bank.shape[1]
    height, width, rows, columns, size = shape
    dim, pixels = asked.shape[2], rows * columns
    drawn = np.empty(PART, np.int64)
    block = np.empty((dim, PART), np.float32)
    barred = np.empty((pixels, PART), np.float32)
    squares = np.empty((width, PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    found = np.empty((0, pixels, sums.shape[2]))
    tops = sums[:, :, 0].copy()
    draws = 0
    for cell in range(len(starts) - 1):
        visits = order[starts[cell] : starts[cell + 1]]
        if len(visits) == 0:
            continue
        if len(visits) > len(found):
            found = np.empty((2 * len(visits), pixels, sums.shape[2]))
        for v in range(len(visits)):
            found[v] = 0.0
            found[v, :, 0] = sums[queries[visits[v]], :, 0]
        population = firsts[cell + 1] - firsts[cell]
        for start in range(0, counts[visits[0]], PART):
            here = min(PART, population - start)
            for j in range(PART):
                drawn[j] = numbers[firsts[cell] + (offsets[cell] + start + min(j, here - 1)) % population]
            take_patches(bank, members, table, drawn, levels, signal, block.T)
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
            seen[visit] = _conclude(
                found[v], counts[visit], population, chance, sums[query], tops[query], weights[query]
            )
    return draws
