"""The leading candidates of every pixel, and the entropy of all of them, without looking at all.

Tiles draw once, as many candidates as they may. The nearest of what was looked at lead. They spread: a pixel looks at
what leads for its neighbours, as far from it as that is from them, for their windows are nearly its own; and at its own
place in the same images. Weights are relative to an estimate of the whole, Σ w/p over what was drawn with probability
p, or to the leading ones alone where these have more: then draws have missed them. Entropies are made of the same sums.
Where all candidates are looked at, both are exact.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.approximate import Pool
from elslightning.machines.estimating import Estimator, Form, one_thread
from elslightning.machines.patches import PatchMachine
from elslightning.machines.ranking import Ranking, power_of
from elslightning.machines.spreading import Extent, Found, Group
from elslightning.machines.tiles import tilings

KEPT = 16
"""Candidates of a pixel that are kept, at least: so many lead its neighbours."""
SPREADS = 4
"""How often they spread, a pixel beyond the border of a tile each time."""
COLDER = 8.0
"""What leads is drawn as if there were so many times less noise, for draws that make good averages are spread wide."""
COLDEST = 256.0
"""But a squared distance of 1 never lowers the logarithm of a weight by more than that: codes leave too much out."""
CLEAREST = 0.997
"""At less noise than that of this signal power draws do not find what leads, for the same reason."""
TOGETHER = 16
"""Images that are worked on at once."""


class Leading(NamedTuple):
    """The leading candidates of every pixel of some images, on the CPU.

    Attributes:
        image: (batch, height, width, top) indices into the whole bank, by descending weight; -1 where there are fewer.
        row, column: of the same shape, the pixel that is copied; -1 where there is none.
        weight: of the same shape, float64 probability among all candidates, in [0, 1].
        entropy: (batch, height, width) float64 of the posterior over all candidates, in nats, at least 0.
    """

    image: Int64[Tensor, "batch height width top"]
    row: Int64[Tensor, "batch height width top"]
    column: Int64[Tensor, "batch height width top"]
    weight: Float[Tensor, "batch height width top"]
    entropy: Float[Tensor, "batch height width"]


def lead(
    machine: PatchMachine,
    estimator: Estimator,
    x_t: Images,
    alpha_bar: AlphaBar,
    label: int | None,
    form: Form,
    seed: int,
    top: int,
    preferred: Int64[Tensor, " batch"],
    tick: Callable[[float], None],
) -> Leading:
    """The leading candidates of the pixels of images of one label and form.

    Args:
        machine: whose windows are hard.
        estimator: of its bank.
        x_t: (batch, channel, height, width), taken as float32.
        alpha_bar: (batch,) float64 in (0, `CLEAREST`].
        label, form, seed: as in `estimate`.
        top: how many to name, at least 1.
        preferred: (batch,) for each image a training image that comes first among equally far ones at the same place,
            or -1.
        tick: told which part is done, from 0 to 1.
    """
    batch, _, height, width = x_t.shape
    extent = Extent(height, width, machine.padding_mode == "circular")
    images, first = x_t.detach().cpu().float().flatten(2).numpy(), preferred.cpu().numpy()
    groups, levels = list(tilings(machine, *form)), alpha_bar.cpu()
    shape = (batch, height * width, top)
    image, place = torch.full((2, *shape), -1)
    weight, entropy = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[:2], dtype=torch.float64)
    with one_thread():
        estimator.prepare(label, groups, machine.memory_budget)
        for done, rows in _together(levels):
            power = power_of(levels[rows[:1]], levels.device)[0]
            pools = [estimator.pool(label, tiles, float(levels[rows[0]]), seed) for tiles in groups]

            def tell(fraction: float, done: int = done, count: int = len(rows)) -> None:
                tick((done + fraction * count) / batch)

            found = _lead(pools, images[rows], first[rows], extent, max(top, KEPT), float(power), tell)
            distance, places, numbers = (values[..., :top] for values in found[:3])
            some = Ranking(distance, places, numbers, found.weight, found.moment)
            # Not a number where draws have missed all candidates of a pixel.
            weight[rows], entropy[rows] = (part.nan_to_num() for part in some.posterior(power))
            place[rows], image[rows] = some.displacement, some.image
    row, column = (part.masked_fill(place < 0, -1) for part in (place // width, place % width))
    image, row, column, weight = (part.reshape(batch, height, width, top) for part in (image, row, column, weight))
    return Leading(image, row, column, weight, entropy.reshape(batch, height, width))


def _together(levels: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Some images at a time, which share a noise level (batch,), and how many came before them."""
    done = 0
    for level in levels.unique():
        for rows in (levels == level).nonzero()[:, 0].split(TOGETHER):
            yield done, rows.numpy()
            done += len(rows)


def _lead(
    pools: list[Pool],
    images: np.ndarray,
    preferred: np.ndarray,
    extent: Extent,
    kept: int,
    power: float,
    tell: Callable[[float], None],
) -> Ranking:
    """The ranking (image, pixel) of some noisy images (image, channel, pixel): positions are indices into the whole
    bank, and displacements the pixels that are copied."""
    whole = Found.empty((len(images), extent.height * extent.width), kept)
    groups = [Group(pool, images, preferred, extent, kept) for pool in pools]
    for k, group in enumerate(groups):
        group.draw()
        group.tell(whole)
        tell((k + 1) / (len(groups) + 1))
    drawn = whole.far[..., 0].astype(np.float64)
    for group in groups:
        colder = min(COLDER, COLDEST / float(group.pool.draws.rate))
        if math.isfinite(group.pool.most) and colder > 1:
            group.draw(colder)
            group.tell(whole)
    for _, group in itertools.product(range(SPREADS), groups):
        if math.isfinite(group.pool.most):
            group.spread(whole)
            group.tell(whole)
    tell(1.0)
    return whole.ranking(drawn, power)
