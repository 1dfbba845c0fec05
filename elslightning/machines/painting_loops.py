"""The compiled loops of windows that fade and of responses: what tiles paint around their pixels, with its spread."""

from typing import Any

import numpy as np

from elslightning.machines.approximate_loops import (
    BARELY,
    FIXED,
    NOTHING,
    PER_CHANNEL,
    add_weighed,
    gather,
)
from elslightning.machines.compiling import compiled, inner
from elslightning.machines.distance_loops import faded_distances
from elslightning.machines.lanes import PART, exp2_part, least, load_part, splat_part, store
from elslightning.machines.region_loops import BARRED, locate, make_room, take_block


@inner
def _weigh(kept: Any, start: int, pixels: int, distances: Any, barred: Any, rate: Any, columns: int) -> None:
    """How much `PART` candidates lower the log-weight of every pixel, into `kept` (candidate / PART · pixel, PART)."""
    speed = splat_part(rate)
    first = start // PART * pixels
    rows = pixels // columns
    for y in range(rows):
        for x in range(columns):
            pixel = y * columns + x
            lowered = load_part(distances, pixel) * speed + load_part(barred, y) + load_part(barred, rows + x)
            store(kept, first + pixel, lowered)


@inner
def _add_heaps(kept: Any, start: int, over: Any, tops: Any, heaps: Any) -> None:
    """Adds the weights of `PART` candidates to `heaps` (pixel, PART), relative to the greatest, `tops` (pixel,)."""
    pixels = len(tops)
    once = load_part(over, 0)
    for pixel in range(pixels):
        lowered = load_part(kept, start // PART * pixels + pixel)
        lowest = least(lowered)
        if lowest > BARELY or -lowest < tops[pixel] - NOTHING:
            continue
        if -lowest > tops[pixel]:
            scale = np.float32(2.0) ** max(tops[pixel] + lowest, np.float32(-120.0))
            store(heaps, pixel, load_part(heaps, pixel) * splat_part(scale))
            tops[pixel] = -lowest
        store(heaps, pixel, load_part(heaps, pixel) + exp2_part(splat_part(-tops[pixel]) - lowered) * once)


@inner
def _spread(kept: Any, start: int, tops: Any, parts: Any, columns: int, response: Any, across: Any, out: Any) -> bool:
    """What `PART` candidates add to every pixel that a tile paints, (row · column, PART): their parts of the weight at
    each pixel of the tile, as far as these respond. Returns whether it is anything.

    `parts` (pixel,): one over the weight of a pixel, or 0 where it does not count. `across` (row of the tile · painted
    column, PART) is for work.
    """
    pixels, reach = len(tops), len(response)
    rows, wide = pixels // columns, columns + reach - 1
    anything = False
    for pixel in range(pixels):
        lowest = least(load_part(kept, start // PART * pixels + pixel))
        if parts[pixel] > 0 and lowest < BARELY and -lowest > tops[pixel] - NOTHING:
            anything = True
    if not anything:
        return False
    nothing = splat_part(np.float32(0.0))
    for k in range(rows * wide):
        store(across, k, nothing)
    for y in range(rows):
        for x in range(columns):
            pixel = y * columns + x
            if parts[pixel] > 0:
                lowered = load_part(kept, start // PART * pixels + pixel)
                weight = exp2_part(splat_part(-tops[pixel]) - lowered) * splat_part(parts[pixel])
                for k in range(reach):
                    into = y * wide + x + k
                    store(across, into, load_part(across, into) + weight * splat_part(response[k]))
    for row in range(rows + reach - 1):
        for x in range(wide):
            found = nothing
            for y in range(max(0, row - reach + 1), min(rows, row + 1)):
                found = found + load_part(across, y * wide + x) * splat_part(response[row - y])
            store(out, row * wide + x, found)
    return True


@compiled
def paint_tiles(
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
    window: Any,
    response: Any,
    own: Any,
    heaps: Any,
    sums: Any,
) -> None:
    """What the candidates that each tile looks at paint: `sums` (tile, painted, column), as those of `average_tiles`,
    but that the first is 0, and weights are the parts that candidates have of the weight at every pixel of the tile,
    times its response. The painted pixels reach beyond the tile as far as the response.

    Args:
        numbers, likely, starts, counts, asked, source, shape, across, signal, rate: as in `average_tiles`.
        window: (P,) float32, how much each pixel of a window counts along an axis.
        response: (odd,) float32, how much each pixel around a location gets of what it says, along an axis.
        own: (tile, pixel) which pixels respond.
        heaps: (tile, pixel, 2) becomes the greatest log-weight, and the weight relative to it.
    """
    channels = source[0].shape[1]
    height, width, rows, columns, size = shape
    pixels, reach = rows * columns, len(response)
    wide, painted = columns + reach - 1, (rows + reach - 1) * (columns + reach - 1)
    inset = (size - reach) // 2
    room = make_room(channels, shape, counts)
    block, barred, over = room[:3]
    most = len(room[3])
    kept = np.empty(((most + PART - 1) // PART * pixels, PART), np.float32)
    tops, parts = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    weights = np.empty((pixels, PART), np.float32)
    lines, squares = np.empty((height * columns, PART), np.float32), np.empty((width, PART), np.float32)
    distances = np.empty((pixels, PART), np.float32)
    lying, shares = np.empty((rows * wide, PART), np.float32), np.empty((painted, PART), np.float32)
    each = FIXED + PER_CHANNEL * channels
    added = np.empty((painted * each, PART), np.float32)
    nothing = np.zeros(painted, np.float32)
    for tile in range(len(asked)):
        tops[:] = -BARRED
        weights[:] = np.float32(0.0)
        added[:] = np.float32(0.0)
        first, found = starts[tile], counts[tile]
        locate(numbers, first, found, source, room)
        for start in range(0, found, PART):
            take_block(numbers, likely, first, start, found, source, shape, across, signal, room)
            faded_distances(
                asked[tile], block, channels, height, width, rows, columns, window, squares, lines, distances
            )
            _weigh(kept, start, pixels, distances, barred, rate, columns)
            _add_heaps(kept, start, over, tops, weights)
        for pixel in range(pixels):
            weight = np.float32(0.0)
            for k in range(PART):
                weight += weights[pixel, k]
            heaps[tile, pixel, 0], heaps[tile, pixel, 1] = tops[pixel], weight
            responds = own[tile, pixel] and weight > 0
            parts[pixel] = np.float32(1.0) / weight if responds else np.float32(0.0)
        for start in range(0, found, PART):
            if not _spread(kept, start, tops, parts, columns, response, lying, shares):
                continue
            take_block(numbers, likely, first, start, found, source, shape, across, signal, room)
            once, spread = load_part(over, 0), load_part(over, 1)
            for y in range(rows + reach - 1):
                for x in range(wide):
                    place = y * wide + x
                    at = (y + inset) * width + x + inset
                    add_weighed(
                        added,
                        place * each,
                        load_part(shares, place) * once,
                        load_part(shares, place) * spread,
                        block,
                        at,
                        height * width,
                        channels,
                    )
        gather(nothing, added, sums[tile])
