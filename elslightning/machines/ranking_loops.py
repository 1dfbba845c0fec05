"""The compiled loops that rank candidates."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import any_within, exp2, fold_least, fold_sum, load, splat, store, total

NO_CANDIDATE = np.float32(1e30)
"""The squared distance of a candidate that is not there yet."""


@inner
def _keep(
    distances: Any,
    count: int,
    numbers: Any,
    displacement: int,
    sharpness: Any,
    kept: Any,
    place: Any,
    image: Any,
    sums: Any,
) -> None:
    """Puts those of `count` candidates of one displacement into a pixel's list that belong there.

    Of equally far ones the first displacement comes first, and of these the first image.
    """
    top = len(kept)
    before = kept[0]
    for lane in range(count):
        distance, number = distances[lane], numbers[lane]
        if distance > kept[top - 1]:
            continue
        k = top
        while k > 0 and (
            distance < kept[k - 1]
            or (
                distance == kept[k - 1]
                and (displacement < place[k - 1] or (displacement == place[k - 1] and number < image[k - 1]))
            )
        ):
            k -= 1
        if k == top:
            continue
        for later in range(top - 1, k, -1):
            kept[later], place[later], image[later] = kept[later - 1], place[later - 1], image[later - 1]
        kept[k], place[k], image[k] = distance, displacement, number
    if kept[0] < before:
        lower = np.float64(before) - np.float64(kept[0])
        scale = 2.0 ** (-lower * sharpness)
        sums[1] = scale * (sums[1] + lower * sums[0])
        sums[0] *= scale


@inner
def _sum_columns(
    query: Any, scale: Any, images: Any, rows: Any, columns: Any, size: int, squares: Any, boxes: Any
) -> None:
    """`boxes[a columns + c] = Σ (query - scale image)²` over channels and the `size` rows from row a of the table on,
    at column c."""
    channels, height, width = query.shape
    signal = splat(scale)
    for c in range(columns.shape[1]):
        v, w = columns[0, c], columns[1, c]
        for a in range(rows.shape[1]):
            y, z = rows[0, a], rows[1, a]
            square = splat(np.float32(0.0))
            if v >= 0 and y >= 0:
                for channel in range(channels):
                    patch = signal * load(images, (channel * height + z) * width + w)
                    difference = splat(query[channel, y, v]) - patch
                    square = square + difference * difference
            store(squares, a, square)
        for a in range(rows.shape[1] - size + 1):
            box = load(squares, a)
            for k in range(a + 1, a + size):
                box = box + load(squares, k)
            store(boxes, a * columns.shape[1] + c, box)


@compiled
def rank_block(
    queries: Any,
    signal: Any,
    images: Any,
    numbers: Any,
    count: int,
    absent: Any,
    pairs: Any,
    rows: Any,
    row_lengths: Any,
    columns: Any,
    column_lengths: Any,
    window: Any,
    centre: Any,
    sharpness: Any,
    cutoff: Any,
    kept: Any,
    place: Any,
    image: Any,
    sums: Any,
    squares: Any,
    boxes: Any,
    distances: Any,
) -> None:
    """Adds a block of training images (channel, height, width, LANES) for every query and displacement.

    `numbers` says which image is in each lane, `count` how many lanes are in use, and `absent` is added to
    the distances: 0 in these, and too far to have weight in the others. The candidates are those of
    `candidates.Candidates`, their tables padded to one length. For every query and pixel (row, column), `kept`,
    `place` and `image` list distances, displacements and images of the nearest candidates, `sums` the weight and
    the moment relative to the nearest. The last three arguments are workspace.
    """
    tall, wide = window
    top = kept.shape[3]
    for n in range(len(queries)):
        reach = np.float32(cutoff / sharpness[n])
        for displacement in range(len(pairs)):
            k, m = pairs[displacement]
            down, along = rows[k, :, : row_lengths[k]], columns[m, :, : column_lengths[m]]
            step = along.shape[1]
            _sum_columns(queries[n], signal[n], images, down, along, tall, squares, boxes)
            for a in range(down.shape[1] - tall + 1):
                i = down[0, a + centre[0]]
                for c in range(step - wide + 1):
                    j = along[0, c + centre[1]]
                    distance = load(absent, 0)
                    for b in range(a * step + c, a * step + c + wide):
                        distance = distance + load(boxes, b)
                    nearest = fold_least(distance)
                    worst = kept[n, i, j, top - 1]
                    if any_within(nearest, max(worst, kept[n, i, j, 0] + reach)):
                        if any_within(nearest, worst):
                            store(distances, 0, distance)
                            _keep(
                                distances,
                                count,
                                numbers,
                                displacement,
                                sharpness[n],
                                kept[n, i, j],
                                place[n, i, j],
                                image[n, i, j],
                                sums[n, i, j],
                            )
                        below = splat(kept[n, i, j, 0]) - distance
                        weights = exp2(below * splat(sharpness[n]))
                        sums[n, i, j, 0] += total(fold_sum(weights))
                        sums[n, i, j, 1] -= total(fold_sum(weights * below))
