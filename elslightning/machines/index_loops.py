"""The compiled loops of the index: patches, and which cell each belongs to."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled
from elslightning.machines.lanes import load_part, splat_part, store
from elslightning.machines.scanning_loops import SCANNED


@compiled
def take_patches(images: Any, members: Any, table: Any, numbers: Any, levels: Any, signal: Any, out: Any) -> None:
    """Patches (n, channel · P²) of images (N, channel, pixel), times `signal`.

    Patch number k is around location k % locations of image members[k // locations]. `table` (locations, P²) names the
    pixels of each location's window, -1 beyond the border, where a patch is 0. `levels` are the 256 values that bytes
    stand for; without entries, pixels are taken as they are.
    """
    locations, size = table.shape
    scaled = signal * levels
    for n in range(len(numbers)):
        image, location = images[members[numbers[n] // locations]], table[numbers[n] % locations]
        for channel in range(len(image)):
            first, plane = channel * size, image[channel]
            for k in range(size):
                pixel = location[k]
                if pixel < 0:
                    out[n, first + k] = 0.0
                elif len(scaled):
                    out[n, first + k] = scaled[np.uint8(plane[pixel])]
                else:
                    out[n, first + k] = signal * plane[pixel]


@compiled
def project(
    images: Any,
    members: Any,
    table: Any,
    first: int,
    levels: Any,
    keys: Any,
    squares: Any,
    products: Any,
    out: Any,
    lengths: Any,
) -> None:
    """Patches from number `first` on, as in `take_patches`, without making them: their products with `keys` (dim, PART)
    into `out` (n, PART); and the sums over their numbers v of `squares` (dim,) times v², plus `products` (dim,) times
    v, into `lengths` (n,)."""
    locations, size = table.shape
    for n in range(len(out)):
        image, location = images[members[(first + n) // locations]], table[(first + n) % locations]
        along = splat_part(np.float32(0.0))
        length = np.float32(0.0)
        for channel in range(len(image)):
            plane = image[channel]
            for k in range(size):
                pixel = location[k]
                if pixel >= 0:
                    value = levels[np.uint8(plane[pixel])] if len(levels) else np.float32(plane[pixel])
                    row = channel * size + k
                    along = along + splat_part(value) * load_part(keys, row)
                    length += value * (squares[row] * value + products[row])
        store(out, n, along)
        lengths[n] = length


@compiled
def _nearest(point: Any, centres: Any, distance: Any) -> int:
    """The nearest of the centres (d, k) to a point (d,)."""
    count = centres.shape[1]
    for k in range(count):
        distance[k] = 0.0
    for i in range(len(centres)):
        for k in range(count):
            away = point[i] - centres[i, k]
            distance[k] += away * away
    best = 0
    for k in range(1, count):
        if distance[k] < distance[best]:
            best = k
    return best


@compiled
def assign(points: Any, top: Any, middle: Any, bottom: Any, cells: Any) -> None:
    """The cell of every point (n, d): of the nearest centre at the top (d, k1), of those below it (k1, d, k2) the
    nearest, and of those below that (k1 · k2, d, k3). Cells are numbered through."""
    second, third = middle.shape[2], bottom.shape[2]
    distance = np.empty(max(top.shape[1], second, third), np.float32)
    for n in range(len(points)):
        point = points[n]
        near = _nearest(point, top, distance)
        near = near * second + _nearest(point, middle[near], distance)
        cells[n] = near * third + _nearest(point, bottom[near], distance)


@compiled
def encode(points: Any, cells: Any, centres: Any, steps: Any, codes: Any) -> None:
    """Half a byte for each number of the points (n, d), as steps (d,) away from the centre (cell, d) of the cell of
    each: 0 is 7.5 steps below it, 15 as many above. `codes` (n, bytes) uint8 has two numbers in a byte, the first
    below."""
    for n in range(len(points)):
        centre = centres[cells[n]]
        for b in range(codes.shape[1]):
            value = 0
            for i in range(min(2, points.shape[1] - 2 * b)):
                away = (points[n, 2 * b + i] - centre[2 * b + i]) / steps[2 * b + i] + np.float32(8)
                value += int(min(np.float32(15), max(np.float32(0), away))) << (4 * i)
            codes[n, b] = value


@compiled
def arrange(codes: Any, order: Any, starts: Any, places: Any, out: Any) -> None:
    """`out` (byte,): codes (n, bytes) of the patches of one cell after the other, from `places` (cell,) on: of each
    `SCANNED` of a cell all first bytes, then all second ones."""
    width = codes.shape[1]
    for cell in range(len(starts) - 1):
        first, size = starts[cell], starts[cell + 1] - starts[cell]
        for k in range(size):
            into = places[cell] + (k // SCANNED) * SCANNED * width + k % SCANNED
            for b in range(width):
                out[into + b * SCANNED] = codes[order[first + k], b]


@compiled
def describe(points: Any, rest: Any, cells: Any, counts: Any, sums: Any, squares: Any, rests: Any) -> None:
    """Adds, per cell, the number of points (n, d), their sum, the sum of squares and of `rest`, the squared length (n,)
    of what the points leave out of their patches."""
    for n in range(len(points)):
        cell = cells[n]
        counts[cell] += 1
        rests[cell] += rest[n]
        for i in range(points.shape[1]):
            sums[cell, i] += points[n, i]
            squares[cell, i] += points[n, i] * points[n, i]


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
