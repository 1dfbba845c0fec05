"""The compiled loops that lead: the nearest of the candidates that tiles of pixels look at, and sums over all. Weights
are powers of two."""

from typing import Any

import numpy as np

from elslightning.machines.approximate_loops import BARELY, NOTHING
from elslightning.machines.compiling import compiled, inner
from elslightning.machines.distance_loops import tile_distances
from elslightning.machines.lanes import PART, exp2_part, least, load_part, splat_part, store
from elslightning.machines.region_loops import BARRED, locate, make_room, take_block


@inner
def _rank(pixel: int, own: int, turn: int, turns: int, extent: Any) -> int:
    """Where a candidate comes among equally far ones: by how far its pixel lies from a pixel's own, then from the top,
    then from the left, then by its turn, of so many."""
    height, width, circular = extent
    down, right = pixel // width - own // width, pixel % width - own % width
    if circular:
        down, right = (down + height // 2) % height - height // 2, (right + width // 2) % width - width // 2
    return (((down**2 + right**2) * 2 * height + down + height) * 2 * width + right + width) * turns + turn


@inner
def _enter(leading: Any, pixel: int, distance: Any, rank: int, image: int, place: int) -> None:
    """Puts a candidate among the leading ones of a pixel, in their order, if it is not there; the last of them goes."""
    far, ranks, images, places = leading
    at = far.shape[1] - 1
    for k in range(at + 1):
        if rank == ranks[pixel, k]:
            return
    if distance > far[pixel, at] or (distance == far[pixel, at] and rank > ranks[pixel, at]):
        return
    while at > 0 and (
        distance < far[pixel, at - 1] or (distance == far[pixel, at - 1] and rank < ranks[pixel, at - 1])
    ):
        far[pixel, at], ranks[pixel, at] = far[pixel, at - 1], ranks[pixel, at - 1]
        images[pixel, at], places[pixel, at] = images[pixel, at - 1], places[pixel, at - 1]
        at -= 1
    far[pixel, at], ranks[pixel, at], images[pixel, at], places[pixel, at] = distance, rank, image, place


@inner
def _add_block(nearest: Any, sums: Any, pixel: int, away: Any, barred: Any, over: Any, rate: Any, low: Any) -> None:
    """Adds `PART` candidates, the nearest of which is `low` away, to the sums (2 · pixel, PART) of a pixel: of weights
    relative to the `nearest` (pixel,) one, and of those times how much farther each is."""
    if low < nearest[pixel]:
        nearer = nearest[pixel] - low
        scale = splat_part(np.float32(2.0) ** max(-nearer * rate, np.float32(-120.0)))
        once, moment = load_part(sums, 2 * pixel), load_part(sums, 2 * pixel + 1)
        store(sums, 2 * pixel + 1, scale * (moment + splat_part(nearer) * once))
        store(sums, 2 * pixel, scale * once)
        nearest[pixel] = low
    farther = away - splat_part(nearest[pixel])
    weight = exp2_part(splat_part(-rate) * farther - barred) * load_part(over, 0)
    store(sums, 2 * pixel, load_part(sums, 2 * pixel) + weight)
    store(sums, 2 * pixel + 1, load_part(sums, 2 * pixel + 1) + weight * farther)


@compiled
def lead_tiles(
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
    extent: Any,
    centres: Any,
    own: Any,
    preferred: Any,
    leading: Any,
    sums: Any,
) -> None:
    """The leading ones of the candidates that each tile looks at, for each of its pixels, and sums over all of them.

    Args:
        numbers, likely, starts, counts: as `choose_tiles` finds them.
        asked: (tile, 2, K) float32, see `tile_distances`.
        source, shape, across, signal: as in `take_block`.
        rate: by which a squared distance lowers the logarithm of a weight.
        extent: height and width of an image, and whether it goes on around its border.
        centres: (location, pixel) which pixel of an image a pixel of a tile copies from a candidate there.
        own: (tile, pixel) which pixel of an image each is; -1 for one that does not count.
        preferred: (tile,) the image that comes first among equally far ones at the same place, or -1.
        leading: (tile, pixel, top) each, by descending weight: squared distances, float32, infinite at first; ranks
            among equally far ones; images; and pixels that are copied, -1 at first.
        sums: (tile, pixel, 2) become Σ w/p over all, with weights w relative to the nearest one and the probability p
            of having been looked at, and that sum of w/p times by how much the squared distance is greater.
    """
    bank, members, table = source[0], source[1], source[2]
    channels, turns = bank.shape[1], bank.shape[0] + 1
    height, width, rows, columns, size = shape
    pixels, locations, last = rows * columns, len(table), leading[0].shape[2] - 1
    room = make_room(channels, shape, counts)
    block, barred, over, drawn = room[0], room[1], room[2], room[5]
    nearest = np.empty(pixels, np.float32)
    parts = np.empty((2 * pixels, PART), np.float32)
    lines = np.empty((height * columns, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    for tile in range(len(asked)):
        nearest[:] = BARRED
        parts[:] = np.float32(0.0)
        mine = (leading[0][tile], leading[1][tile], leading[2][tile], leading[3][tile])
        first, found = starts[tile], counts[tile]
        locate(numbers, first, found, source, room)
        for start in range(0, found, PART):
            take_block(numbers, likely, first, start, found, source, shape, across, signal, room)
            tile_distances(asked[tile], block, channels, height, width, rows, columns, size, lines, distances)
            for pixel in range(pixels):
                y, x = pixel // columns, pixel % columns
                away, bars = load_part(distances, pixel), load_part(barred, y) + load_part(barred, rows + x)
                low = least(away + bars)
                if own[tile, pixel] < 0 or low > BARELY:
                    continue
                if low <= mine[0][pixel, last]:
                    for j in range(PART):
                        distance = distances[pixel, j]
                        if distance <= mine[0][pixel, last] and barred[y, j] + barred[rows + x, j] < BARELY:
                            image, place = members[drawn[j] // locations], centres[drawn[j] % locations, pixel]
                            turn = 0 if image == preferred[tile] else image + 1
                            rank = _rank(place, own[tile, pixel], turn, turns, extent)
                            _enter(mine, pixel, distance, rank, image, place)
                if (low - nearest[pixel]) * rate < NOTHING:
                    _add_block(nearest, parts, pixel, away, bars, over, rate, low)
        for pixel in range(pixels):
            for k in range(2):
                sums[tile, pixel, k] = 0.0
                for j in range(PART):
                    sums[tile, pixel, k] += np.float64(parts[2 * pixel + k, j])
