"""The compiled loops of the approximate patch machines: patches, cells, and sums over draws with their spread."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner


@compiled
def take_patches(images: Any, members: Any, table: Any, numbers: Any, levels: Any, out: Any) -> None:
    """Patches (n, channel · P²) of images (N, channel, pixel).

    Patch number k is around location k % locations of image members[k // locations]. `table` (locations, P²) names the
    pixels of each location's window, -1 beyond the border, where a patch is 0. `levels` are the 256 values that bytes
    stand for; without entries, pixels are taken as they are.
    """
    locations, size = table.shape
    for n in range(len(numbers)):
        image, location = images[members[numbers[n] // locations]], table[numbers[n] % locations]
        for channel in range(len(image)):
            first = channel * size
            for k in range(size):
                pixel = location[k]
                if pixel < 0:
                    out[n, first + k] = 0.0
                elif len(levels):
                    out[n, first + k] = levels[int(image[channel, pixel])]
                else:
                    out[n, first + k] = image[channel, pixel]


@compiled
def assign(
    points: Any, coarse: Any, fine: Any, cells: Any, rest: Any, counts: Any, sums: Any, squares: Any, rests: Any
) -> None:
    """The nearest cell of every point (n, d): of the nearest coarse centre, the nearest fine one.

    `fine` (coarse, fine, d); cells are numbered through. Adds, per cell, the number of points, their sum, the sum of
    squares and of `rest`, the squared length (n,) of what the points leave out of their patches.
    """
    d = points.shape[1]
    distance = np.empty(max(len(coarse), fine.shape[1]), np.float32)
    for n in range(len(points)):
        point = points[n]
        for k in range(len(coarse)):
            total = np.float32(0.0)
            for i in range(d):
                total += (point[i] - coarse[k, i]) ** 2
            distance[k] = total
        near = int(np.argmin(distance[: len(coarse)]))
        for k in range(fine.shape[1]):
            total = np.float32(0.0)
            for i in range(d):
                total += (point[i] - fine[near, k, i]) ** 2
            distance[k] = total
        cell = near * fine.shape[1] + int(np.argmin(distance[: fine.shape[1]]))
        cells[n] = cell
        counts[cell] += 1
        rests[cell] += rest[n]
        for i in range(d):
            sums[cell, i] += point[i]
            squares[cell, i] += point[i] * point[i]


@compiled
def sort_cells(cells: Any, starts: Any, seed: int, order: Any) -> None:
    """`order`: the patches of one cell after the other, those of a cell in random order."""
    place = starts[:-1].copy()
    for number in range(len(cells)):
        order[place[cells[number]]] = number
        place[cells[number]] += 1
    np.random.seed(seed)  # noqa: NPY002 - what numba compiles
    for cell in range(len(starts) - 1):
        first, count = starts[cell], starts[cell + 1] - starts[cell]
        for k in range(count - 1, 0, -1):
            other = np.random.randint(0, k + 1)  # noqa: NPY002
            order[first + k], order[first + other] = order[first + other], order[first + k]


@compiled
def allot(expected: Any, sizes: Any, budget: Any, least: int, counts: Any, visits: Any) -> None:
    """How many members of each cell a query draws, (query, cell); `visits` (cell,) counts the queries that draw.

    In proportion to `expected` (query, cell), logarithms of what a cell adds to the spread: a power of two, at least
    `least`, or all members where that would be half of them or more. Nothing where the share is below `least`.
    """
    weights = np.empty(len(sizes))
    for q in range(len(expected)):
        highest = expected[q].max()
        total = 0.0
        for c in range(len(sizes)):
            weights[c] = 0.0
            if expected[q, c] > highest - 30:
                weights[c] = np.exp(expected[q, c] - highest)
                total += weights[c]
        for c in range(len(sizes)):
            share = budget * weights[c] / total
            counts[q, c] = 0
            if share >= least:
                count = least
                while count < share:
                    count *= 2
                if 2 * count >= sizes[c]:
                    count = sizes[c]
                counts[q, c] = count
                visits[c] += 1


@compiled
def foreseen(masses: Any, spreads: Any, counts: Any, pilots: Any, sizes: Any, unevenness: Any) -> None:
    """The relative variance (query,) of the sum of all weights, as far as cells are what they are described as.

    `masses` and `spreads` (query, cell) are the logarithms of N E w and N sqrt(E w²); `counts` draws are made by the
    query, `pilots` (cell,) where it makes none.
    """
    for q in range(len(masses)):
        highest = masses[q].max()
        above = spreads[q].max()
        mass = variance = 0.0
        for c in range(len(sizes)):
            if sizes[c] == 0:
                continue
            if masses[q, c] > highest - 30:
                mass += np.exp(masses[q, c] - highest)
            count = counts[q, c] if counts[q, c] > 0 else pilots[c]
            if count < sizes[c] and spreads[q, c] > above - 30:
                variance += np.exp(2 * (spreads[q, c] - above)) * (1 / count - 1 / sizes[c])
        unevenness[q] = variance * np.exp(2 * (above - highest)) / mass**2


@compiled
def by_cell(counts: Any, starts: Any, queries: Any, draws: Any) -> None:
    """The visits of all queries, one cell after the other."""
    place = starts[:-1].copy()
    for q in range(len(counts)):
        for c in range(counts.shape[1]):
            if counts[q, c] > 0:
                queries[place[c]] = q
                draws[place[c]] = counts[q, c]
                place[c] += 1


@inner
def _add(
    highest: Any,
    heaviest: Any,
    count: int,
    size: int,
    weight: Any,
    square: Any,
    moments: Any,
    best: Any,
    total: Any,
    spread: Any,
) -> None:
    """Adds `count` draws without replacement from a cell of `size` candidates to the sums of a query.

    All is relative to the log-weight `highest`: `heaviest`, the greatest w; `weight` and `square`, the sums of w and
    w²; and `moments` (channel, 4), those of w v, w² v, w² v² and w v². `best` (3,) is the query's greatest log-weight,
    the weight relative to it, and the heaviest single draw. `total` (2 channel,) are the sums
    of w v and w v²; `spread` (1 + 2 channel,) the coefficients of the variance of the sum of w (v - m), a quadratic
    polynomial in m.
    """
    if highest > best[0]:
        scale = np.exp(best[0] - highest)
        best[0] = highest
        best[1] *= scale
        best[2] *= scale
        for c in range(len(total)):  # which numba compiles in a moment, and an operation on an array in seconds
            total[c] *= scale
        for c in range(len(spread)):
            spread[c] *= scale * scale
    scale = np.exp(highest - best[0]) * size / count
    best[1] += scale * weight
    channels = len(moments)
    for c in range(channels):
        total[c] += scale * moments[c, 0]
        total[channels + c] += scale * moments[c, 3]
    best[2] = max(best[2], scale * heaviest)
    if count < size:
        factor = scale * scale * (1 - count / size) * count / (count - 1)
        spread[0] += factor * (square - weight * weight / count)
        for c in range(channels):
            spread[1 + 2 * c] += factor * (moments[c, 1] - weight * moments[c, 0] / count)
            spread[2 + 2 * c] += factor * (moments[c, 2] - moments[c, 0] ** 2 / count)


@compiled
def add_visits(queries: Any, draws: Any, sizes: Any, sums: Any, best: Any, total: Any, spread: Any) -> None:
    """Adds all visits (visit, 3 + 4 channel), in the order in which they are listed; `sizes` are those of their cells.

    A row of `sums`: the greatest log-weight, the sums of w and w², and for each channel those of w v, w² v, w² v² and
    w v².
    """
    for k in range(len(queries)):
        q, row = queries[k], sums[k]
        _add(row[0], 1.0, draws[k], sizes[k], row[1], row[2], row[3:].reshape(-1, 4), best[q], total[q], spread[q])


@compiled
def add_pilots(
    weights: Any, highest: Any, values: Any, starts: Any, sizes: Any, counts: Any, best: Any, total: Any, spread: Any
) -> None:
    """Adds the few draws that all queries share to those that do not visit their cell.

    `weights` (query, draw), relative to `highest` (query,); the draws of cell c are those from `starts[c]`.
    """
    moments = np.empty((values.shape[1], 4))
    for q in range(len(weights)):
        for c in range(len(sizes)):
            first, last = starts[c], starts[c + 1]
            if counts[q, c] > 0 or first == last:
                continue
            heaviest = weight = square = 0.0
            moments[:] = 0.0
            for k in range(first, last):
                w = np.float64(weights[q, k])
                if w == 0.0:
                    continue
                heaviest = max(heaviest, w)
                weight += w
                square += w * w
                for channel in range(values.shape[1]):
                    value = values[k, channel]
                    moments[channel, 0] += w * value
                    moments[channel, 1] += w * w * value
                    moments[channel, 2] += w * w * value * value
                    moments[channel, 3] += w * value * value
            if weight > 0.0:
                _add(
                    highest[q],
                    heaviest,
                    last - first,
                    sizes[c],
                    weight,
                    square,
                    moments,
                    best[q],
                    total[q],
                    spread[q],
                )
