"""The compiled loops of the soft patch machines.

Distances are formed once in `add_soft_block`, whichever pass it makes, of operations that are merged with no others:
in the second pass they are those of the first to the last digit, or else what is normalised would not sum to one.
"""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import (
    any_below,
    any_within,
    exp2,
    fold_least,
    fold_sum,
    fused,
    least,
    load,
    load_part,
    splat,
    store,
    total,
)
from elslightning.machines.loops import flush, lower


@inner
def _square(query: Any, scale: Any, images: Any, rows: Any, columns: Any, squares: Any, step: int) -> None:
    """`squares[c step + a] = Σ (query[0] - scale image) (query[1] - scale image)` over channels, at row a and column c
    of two tables."""
    _, channels, height, width = query.shape
    signal = splat(-scale)
    for c in range(columns.shape[1]):
        v, w = columns[0, c], columns[1, c]
        for a in range(rows.shape[1]):
            y, z = rows[0, a], rows[1, a]
            square = splat(np.float32(0.0))
            if v >= 0 and y >= 0:
                for channel in range(channels):
                    patch = load(images, (channel * height + z) * width + w)
                    near = fused(signal, patch, splat(query[0, channel, y, v]))
                    square = fused(near, fused(signal, patch, splat(query[1, channel, y, v])), square)
            store(squares, c * step + a, square)


@inner
def _filter(
    source: Any, begin: int, first: int, last: int, taps: Any, radius: int, target: Any, to: int, by: int
) -> None:
    """`target[to + by k]` is the sum around `source[begin + k]`, weighted by distance; first <= k < last."""
    for k in range(first, last):
        value = splat(np.float32(0.0))
        for j in range(-radius, radius + 1):
            value = fused(splat(taps[abs(j)]), load(source, begin + k + j), value)
        store(target, to + by * k, value)


@inner
def _add_row(
    distances: Any,
    a: int,
    images: Any,
    rows: Any,
    columns: Any,
    first: int,
    valued: bool,
    sharpness: Any,
    reach: Any,
    best: Any,
    running: Any,
    weight: Any,
    weighted: Any,
) -> None:
    """Adds the candidates at one displacement to the running softmax of a row of pixels; of their values only if
    `valued`."""
    channels, height, width = weighted.shape
    i, p = rows[0, a], rows[1, a]
    for c in range(first, columns.shape[1] - first):
        j, q = columns[0, c], columns[1, c]
        distance = load(distances, c)
        nearest = fold_least(distance)
        if any_within(nearest, best[1, i, j]):
            if any_below(nearest, best[0, i, j]):
                lower(least(nearest), sharpness, reach, i, j, best, running, weight, weighted)
            pixel = i * width + j
            weights = exp2((splat(best[0, i, j]) - distance) * splat(sharpness))
            store(running, pixel, load_part(running, pixel) + fold_sum(weights))
            if valued:
                for channel in range(channels):
                    pixel += height * width
                    value = load(images, (channel * height + p) * width + q)
                    store(running, pixel, load_part(running, pixel) + fold_sum(weights * value))


@inner
def _weigh_row(
    distances: Any,
    i: int,
    columns: Any,
    first: int,
    sharpness: Any,
    best: Any,
    share: Any,
    weights: Any,
    begin: int,
) -> tuple[int, int]:
    """The posterior weights of a row of pixels, from `begin` on, and the first and last column of a weight to speak
    of."""
    low, high = columns.shape[1], -1
    for c in range(first, columns.shape[1] - first):
        j = columns[0, c]
        distance = load(distances, c)
        if any_within(fold_least(distance), best[1, i, j]):
            weight = exp2((splat(best[0, i, j]) - distance) * splat(sharpness)) * splat(share[i, j])
            store(weights, begin + c, weight)
            low, high = min(low, c), c
        else:
            store(weights, begin + c, splat(np.float32(0.0)))
    return low, high


@inner
def _respond(
    weights: Any,
    wide: int,
    low: Any,
    high: Any,
    images: Any,
    rows: Any,
    first: int,
    columns: Any,
    margin: int,
    radius: int,
    response: Any,
    blurred: Any,
    step: int,
    running: Any,
) -> None:
    """Adds the training pixels that posterior weights and a response give to the pixels around their locations.

    `low` and `high` are the first and last column of each row of weights that counts.
    """
    channels, height, width = running.shape[:3]
    tall = rows.shape[1]
    for a in range(first, tall - first):
        for c in range(max(margin, low[a] - radius), min(columns.shape[1] - margin, high[a] + radius + 1)):
            value = splat(np.float32(0.0))
            for k in range(max(low[a], c - radius), min(high[a], c + radius) + 1):
                value = fused(splat(response[abs(k - c)]), load(weights, a * wide + k), value)
            store(blurred, c * step + a, value)
    for c in range(margin, columns.shape[1] - margin):
        j, q = columns[0, c], columns[1, c]
        if j < 0:
            continue
        for a in range(first - radius, tall - first + radius):
            i, p = rows[0, a], rows[1, a]
            if i < 0:
                continue
            value = splat(np.float32(0.0))
            reached = False
            for k in range(max(first, a - radius), min(tall - first, a + radius + 1)):
                if low[k] - radius <= c <= high[k] + radius:
                    value = fused(splat(response[abs(k - a)]), load(blurred, c * step + k), value)
                    reached = True
            if reached:
                for channel in range(channels):
                    pixel = (channel * height + i) * width + j
                    patch = load(images, (channel * height + p) * width + q)
                    store(running, pixel, load_part(running, pixel) + fold_sum(value * patch))


@inner
def _collect(running: Any, painted: Any) -> None:
    """Moves running sums to where they are kept in float64."""
    channels, height, width = painted.shape
    for channel in range(channels):
        for i in range(height):
            for j in range(width):
                painted[channel, i, j] += total(load_part(running, (channel * height + i) * width + j))
    running[:] = 0.0


@compiled
def add_soft_block(
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
    taps: Any,
    valued: Any,
    of: Any,
    responses: Any,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
    share: Any,
    painted: Any,
    squares: Any,
    sums: Any,
    distances: Any,
    running: Any,
    weights: Any,
    blurred: Any,
    low: Any,
    high: Any,
    painting: Any,
) -> None:
    """Adds a block of training images (channel, height, width, LANES) for every query, window and displacement.

    Queries, tables of rows and columns, `signal`, `best`, `weight` and `weighted` are as in `loops.add_block`. A window
    s is `2 radii[s] + 1` wide and has the weights taps[s] along either axis. In the first pass, where there are no
    `responses`, the softmax runs. In the second one `best` and `share`, one over the sum of the weights, are given, and
    response n of window of[n] adds to `painted[:, n]`. The arguments after `painted` are workspace; `running` and
    `painting` come and go as zeros.
    """
    step, room = rows.shape[2], columns.shape[2]
    for n in range(len(queries)):
        reach = np.float32(cutoff / sharpness[n])
        for k in range(len(rows)):
            down = rows[k, :, : row_lengths[k]]
            tall = down.shape[1]
            for m in range(len(columns)):
                along = columns[m, :, : column_lengths[m]]
                wide = along.shape[1]
                _square(queries[n], signal[n], images, down, along, squares, step)
                for s in range(len(radii)):
                    radius, first, start = radii[s], row_firsts[k, s], column_firsts[m, s]
                    margin = start - radius
                    if 2 * first >= tall or 2 * start >= wide:
                        continue
                    for c in range(margin, wide - margin):
                        _filter(squares, c * step, first, tall - first, taps[s], radius, sums, c, room)
                    counts = False
                    for a in range(first, tall - first):
                        _filter(sums, a * room, start, wide - start, taps[s], radius, distances, 0, 1)
                        if len(responses) == 0:
                            _add_row(
                                distances,
                                a,
                                images,
                                down,
                                along,
                                start,
                                valued[s],
                                sharpness[n],
                                reach,
                                best[n, s],
                                running[s],
                                weight[n, s],
                                weighted[n, s],
                            )
                        else:
                            low[a], high[a] = _weigh_row(
                                distances,
                                down[0, a],
                                along,
                                start,
                                sharpness[n],
                                best[n, s],
                                share[n, s],
                                weights,
                                a * room,
                            )
                            counts = counts or high[a] >= 0
                    if counts:
                        for r in range(len(responses)):
                            if of[r] == s:
                                _respond(
                                    weights,
                                    room,
                                    low,
                                    high,
                                    images,
                                    down,
                                    first,
                                    along,
                                    margin,
                                    radius,
                                    responses[r],
                                    blurred,
                                    step,
                                    painting[r],
                                )
            if len(responses) == 0:
                for s in range(len(radii)):
                    flush(down, row_firsts[k, s], running[s], weight[n, s], weighted[n, s])
            else:
                for r in range(len(responses)):
                    _collect(painting[r], painted[n, r])
