"""The compiled loops of the index: patches, and which cell each belongs to."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import PART, least, load_part, splat_part, spread_part, store
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


@inner
def _nearest(points: Any, n: int, centres: Any, cell: int, room: Any) -> int:
    """Which centre of a cell is nearest to a point."""
    groups, dim = centres.shape[1], centres.shape[2]
    lowest, best = np.float32(np.inf), 0
    for group in range(groups):
        found = splat_part(np.float32(0.0))
        row = (cell * groups + group) * dim
        for i in range(dim):
            away = spread_part(points, n * dim + i) - load_part(centres, row + i)
            found = found + away * away
        low = least(found)
        if low < lowest:
            lowest = low
            store(room, 0, found)
            k = 0
            while k < PART - 1 and room[k] > low:
                k += 1
            best = group * PART + k
    return best


@compiled
def assign(points: Any, top: Any, middle: Any, bottom: Any, branches: Any, cells: Any) -> None:
    """The cell of every point (n, d): of the nearest centre at the top, of those below it the nearest, and of those
    below that. Centres of a level (cell above, group, d, PART) are in groups, those that are not there far away;
    `branches` says how many there are on the second level and the third. Cells are numbered through."""
    room = np.empty(PART, np.float32)
    for n in range(len(points)):
        near = _nearest(points, n, top, 0, room)
        near = near * branches[0] + _nearest(points, n, middle, near, room)
        cells[n] = near * branches[1] + _nearest(points, n, bottom, near, room)


@compiled
def encode(points: Any, cells: Any, centres: Any, steps: Any, codes: Any) -> None:
    """Half a byte for each number of the points (n, d), as steps (d,) away from the centre (cell, d) of the cell of
    each: 0 is 7.5 steps below it, 15 as many above. `codes` (n, bytes) uint8 has two numbers in a byte, the first
    below."""
    often = np.float32(1) / steps
    for n in range(len(points)):
        centre = centres[cells[n]]
        for b in range(codes.shape[1]):
            value = 0
            for i in range(min(2, points.shape[1] - 2 * b)):
                away = (points[n, 2 * b + i] - centre[2 * b + i]) * often[2 * b + i] + np.float32(8)
                value += int(min(np.float32(15), max(np.float32(0), away))) << (4 * i)
            codes[n, b] = value


@compiled
def arrange(codes: Any, order: Any, starts: Any, places: Any, first: int, last: int, out: Any) -> None:
    """Of cells from `first` to `last`, into `out` (byte,): codes (n, bytes) of the patches of one cell after the other,
    from `places` (cell,) on: of each `SCANNED` of a cell all first bytes, then all second ones."""
    width = codes.shape[1]
    for cell in range(first, last):
        begin, size = starts[cell], starts[cell + 1] - starts[cell]
        for k in range(size):
            into = places[cell] + (k // SCANNED) * SCANNED * width + k % SCANNED
            for b in range(width):
                out[into + b * SCANNED] = codes[order[begin + k], b]


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
