"""The compiled loops of the patch machines."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import (
    any_below,
    any_within,
    exp2,
    fold_least,
    fold_sum,
    least,
    load,
    load_part,
    splat,
    store,
    total,
)

NO_CANDIDATE = np.float32(1e30)
"""The squared distance of the nearest candidate where there is none yet."""


@inner
def _suffix_sums(rows: Any, first: int, stride: int, size: int, suffixes: Any) -> None:
    """`suffixes[k]` is the sum of the rows k … size - 1 that begin at `first`, `stride` apart; for k >= 1."""
    suffix = splat(np.float32(0.0))
    for k in range(size - 1, 0, -1):
        suffix = suffix + load(rows, first + k * stride)
        store(suffixes, k, suffix)


@inner
def _sum_columns(
    query: Any,
    scale: Any,
    images: Any,
    rows: Any,
    columns: Any,
    first: int,
    radius: int,
    squares: Any,
    keep: int,
    sums: Any,
    step: int,
    suffixes: Any,
) -> None:
    """Squared differences of one displacement, and their sums over windows of `2 radius + 1` rows.

    `squares[c keep + a] = Σ (query[0] - scale image) (query[1] - scale image)` over channels, at row a and column c of
    two tables; with `keep = 0`, of one column after the other. `sums[c step + a]` is over the window around row a, for
    the rows first … -first - 1. A window's sum is a suffix sum of one block of P rows plus a prefix sum of the next
    (van Herk), so nothing is ever subtracted.
    """
    _, channels, height, width = query.shape
    size = 2 * radius + 1
    signal = splat(scale)
    for c in range(columns.shape[1]):
        v, w = columns[0, c], columns[1, c]
        slot = 0
        prefix = splat(np.float32(0.0))
        for a in range(rows.shape[1]):
            y, z = rows[0, a], rows[1, a]
            square = splat(np.float32(0.0))
            if v >= 0 and y >= 0:
                for channel in range(channels):
                    patch = signal * load(images, (channel * height + z) * width + w)
                    near, mirrored = splat(query[0, channel, y, v]), splat(query[1, channel, y, v])
                    square = square + (near - patch) * (mirrored - patch)
            store(squares, c * keep + a, square)
            if a < first - radius:
                continue
            if slot == size:
                slot = 0
                _suffix_sums(squares, c * keep + a - size, 1, size, suffixes)
                prefix = splat(np.float32(0.0))
            prefix = prefix + square
            if a >= first + radius:
                box = prefix
                if slot + 1 < size:
                    box = prefix + load(suffixes, slot + 1)
                store(sums, c * step + a - radius, box)
            slot += 1


@inner
def _widen(squares: Any, sums: Any, step: int, width: int, height: int, first: int, narrow: int, wide: int) -> None:
    """`sums` over `2 narrow + 1` rows become sums over `2 wide + 1`, by adding what lies farther out."""
    for c in range(width):
        for a in range(c * step + first, c * step + height - first):
            box = load(sums, a)
            for r in range(narrow + 1, wide + 1):
                box = box + (load(squares, a - r) + load(squares, a + r))
            store(sums, a, box)


@inner
def lower(
    nearest: Any, sharpness: Any, reach: Any, i: int, j: int, best: Any, running: Any, weight: Any, weighted: Any
) -> None:
    """Makes `nearest` the distance that the sums of pixel (i, j) are relative to."""
    # Number by number: what numba makes of an operation on whole arrays takes seconds to compile.
    scale = 2.0 ** (np.float64(nearest - best[0, i, j]) * sharpness)
    weight[i, j] *= scale
    for channel in range(len(weighted)):
        weighted[channel, i, j] *= scale
    for channel in range(len(running)):
        for lane in range(running.shape[3]):
            running[channel, i, j, lane] *= np.float32(scale)
    best[0, i, j] = nearest
    best[1, i, j] = nearest + reach


@inner
def _add_rows(
    sums: Any,
    step: int,
    images: Any,
    rows: Any,
    first: int,
    columns: Any,
    margin: int,
    radius: int,
    sharpness: Any,
    reach: Any,
    best: Any,
    running: Any,
    weight: Any,
    weighted: Any,
    suffixes: Any,
) -> None:
    """Adds the candidates at one displacement to the running softmax of their pixels.

    Along a row, the column sums are summed over windows in the same way as in `_sum_columns`.
    """
    channels, height, width = weighted.shape
    size = 2 * radius + 1
    for a in range(first, rows.shape[1] - first):
        i, p = rows[0, a], rows[1, a]
        slot = 0
        prefix = splat(np.float32(0.0))
        for c in range(margin, columns.shape[1] - margin):
            if slot == size:
                slot = 0
                _suffix_sums(sums, (c - size) * step + a, step, size, suffixes)
                prefix = splat(np.float32(0.0))
            prefix = prefix + load(sums, c * step + a)
            if c >= margin + 2 * radius:
                distance = prefix
                if slot + 1 < size:
                    distance = prefix + load(suffixes, slot + 1)
                j, q = columns[0, c - radius], columns[1, c - radius]
                nearest = fold_least(distance)
                if any_within(nearest, best[1, i, j]):
                    if any_below(nearest, best[0, i, j]):
                        lower(least(nearest), sharpness, reach, i, j, best, running, weight, weighted)
                    pixel = i * width + j
                    weights = exp2((splat(best[0, i, j]) - distance) * splat(sharpness))
                    store(running, pixel, load_part(running, pixel) + fold_sum(weights))
                    for channel in range(channels):
                        pixel += height * width
                        value = load(images, (channel * height + p) * width + q)
                        store(running, pixel, load_part(running, pixel) + fold_sum(weights * value))
            slot += 1


@inner
def flush(rows: Any, first: int, running: Any, weight: Any, weighted: Any) -> None:
    """Moves the running sums of some rows to where they are kept in float64."""
    channels, height, width = weighted.shape
    for a in range(first, rows.shape[1] - first):
        i = rows[0, a]
        for j in range(width):
            weight[i, j] += total(load_part(running, i * width + j))
            for channel in range(channels):
                weighted[channel, i, j] += total(load_part(running, ((channel + 1) * height + i) * width + j))
            running[:, i, j] = 0.0


@compiled
def add_block(
    queries: Any,
    signal: Any,
    images: Any,
    rows: Any,
    row_lengths: Any,
    row_firsts: Any,
    columns: Any,
    column_lengths: Any,
    column_firsts: Any,
    radii: Any,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
    squares: Any,
    sums: Any,
    suffixes: Any,
    running: Any,
) -> None:
    """Adds a block of training images (channel, height, width, LANES) for every query, radius and displacement.

    `queries` are those of `compiled.reflected`; `signal` is sqrt(alpha_bar) per query. A table of rows says, for one
    displacement, which rows of query and training image are compared with each other, or -1 where both are beyond the
    border; for a radius, all but so many at either end of it are outputs, as `row_firsts` says. Columns alike. `best`
    holds, per query and radius, the distance of the nearest candidate of each pixel, and beyond which one has no weight
    to speak of; `weight` and `weighted` are the running sums. The last four arguments are workspace; `running` comes
    and goes as zeros.
    """
    step = rows.shape[2]
    for n in range(len(queries)):
        reach = np.float32(cutoff / sharpness[n])
        for k in range(len(rows)):
            down = rows[k, :, : row_lengths[k]]
            tall = down.shape[1]
            for m in range(len(columns)):
                along = columns[m, :, : column_lengths[m]]
                wide = along.shape[1]
                narrow = radii[0]
                _sum_columns(
                    queries[n],
                    signal[n],
                    images,
                    down,
                    along,
                    row_firsts[k, 0],
                    narrow,
                    squares,
                    step if len(radii) > 1 else 0,
                    sums,
                    step,
                    suffixes,
                )
                for s in range(len(radii)):
                    radius, first, margin = radii[s], row_firsts[k, s], column_firsts[m, s] - radii[s]
                    if 2 * first >= tall or 2 * column_firsts[m, s] >= wide:
                        break  # nor for a larger one
                    if narrow < radius:
                        _widen(squares, sums, step, wide, tall, first, narrow, radius)
                        narrow = radius
                    _add_rows(
                        sums,
                        step,
                        images,
                        down,
                        first,
                        along,
                        margin,
                        radius,
                        sharpness[n],
                        reach,
                        best[n, s],
                        running[s],
                        weight[n, s],
                        weighted[n, s],
                        suffixes,
                    )
            for s in range(len(radii)):
                flush(down, row_firsts[k, s], running[s], weight[n, s], weighted[n, s])
