"""The leading candidates of every pixel, and the entropy of all of them, from as many as tiles draw in one round.

The nearest of all that was looked at lead: the heaviest candidates are looked at with certainty, as far as their codes
tell. Weights are relative to an estimate of the whole, Σ w/p over what was looked at with probability p; entropies are
made of the same sums. Where all candidates are looked at, both are exact.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.approximate import TILES, Pool
from elslightning.machines.estimating import Estimator, Form, one_thread
from elslightning.machines.index import Candidates
from elslightning.machines.leading_loops import lead_tiles
from elslightning.machines.patches import PatchMachine
from elslightning.machines.ranking import Ranking, power_of
from elslightning.machines.tiles import Tiles, tilings


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


class _Found(NamedTuple):
    """What is known of some pixels: for each of the leading candidates its squared distance, where it comes among
    equally far ones, its image and the pixel in it; and sums over all candidates, as `lead_tiles` makes them."""

    far: np.ndarray
    ranks: np.ndarray
    images: np.ndarray
    places: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], top: int) -> "_Found":
        """Nothing yet."""
        highest = np.iinfo(np.int64).max
        far, ranks = np.full((*shape, top), np.inf, np.float32), np.full((*shape, top), highest)
        images, places = np.full((2, *shape, top), -1)
        return cls(far, ranks, images, places, np.zeros((*shape, 2)))

    def of(self, part: slice) -> "_Found":
        """That of some tiles; what is written into it is written into this."""
        return _Found(*(values[part] for values in self))


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
        alpha_bar: (batch,) float64 in (0, 1).
        label, form, seed: as in `estimate`.
        top: how many to name, at least 1.
        preferred: (batch,) for each image a training image that comes first among equally far ones at the same place,
            or -1.
        tick: told which part is done, from 0 to 1.
    """
    batch, _, height, width = x_t.shape
    images = x_t.detach().cpu().float().flatten(2).numpy()
    groups = list(tilings(machine, *form))
    with one_thread():
        estimator.prepare(label, groups)
    extent = (height, width, machine.padding_mode == "circular")
    whole = _Found.empty((batch, height * width), top)
    levels, first = alpha_bar.cpu(), preferred.cpu().numpy()
    done = 0
    for level, tiles in itertools.product(levels.unique(), groups):
        rows = (levels == level).nonzero()[:, 0].numpy()
        regions = Candidates(images, rows, tiles.asked)
        own, firsts = np.tile(tiles.pixels, (len(rows), 1)), np.repeat(first[rows], len(tiles.asked))
        with one_thread():
            pool = estimator.pool(label, tiles, float(level), seed)
            found = _lead(pool, regions.of(np.arange(len(regions))), own, firsts, extent, top)
        where = own >= 0
        into = (np.repeat(rows, len(tiles.asked))[where.nonzero()[0]], own[where])
        for values, part in zip(whole, found, strict=True):
            values[into] = part[where]
        done += int(where.sum())
        tick(done / (batch * height * width))
    shape = (batch, height, width)
    far, _, image, place, sums = (torch.from_numpy(values).reshape(*shape, -1) for values in whole)
    power = power_of(levels, levels.device)
    probability, entropy = Ranking(far, place, image, sums[..., 0], sums[..., 1]).posterior(power)
    none = place < 0
    row, column = (values.masked_fill(none, -1) for values in (place // width, place % width))
    return Leading(image, row, column, probability, entropy)


def _lead(
    pool: Pool, regions: np.ndarray, own: np.ndarray, preferred: np.ndarray, extent: tuple[int, int, bool], top: int
) -> _Found:
    """What is found of the pixels (tile, pixel) of tiles, whose noisy regions are (tile, dim) float32."""
    tiles, threads = pool.tiles, torch.get_num_threads()
    found, centres, source = _Found.empty(own.shape, top), _centres(tiles), pool.source
    budgets = np.full(len(own), pool.most)

    def work(part: slice) -> None:
        mine, asked = found.of(part), np.stack([regions[part], regions[part]], axis=1)
        for some, looked, _, _ in pool.draws.looked(regions[part], budgets[part]):
            lead_tiles(
                *looked,
                asked[some],
                source,
                tiles.geometry,
                pool.across,
                pool.signal,
                pool.rate,
                extent,
                centres,
                own[part][some],
                preferred[part][some],
                mine.of(some)[:4],
                mine.sums[some],
            )

    portion = max(1, min(TILES, -(-len(own) // (4 * threads))))
    with ThreadPoolExecutor(threads) as workers:
        for _ in workers.map(work, [slice(start, start + portion) for start in range(0, len(own), portion)]):
            pass
    return found


def _centres(tiles: Tiles) -> np.ndarray:
    """(location, pixel) which pixel of an image each pixel of a tile copies from a candidate there; -1 for none."""
    height, width, _, _, size = tiles.geometry
    inset = size // 2
    regions = tiles.table.reshape(-1, height, width)[:, inset : height - inset, inset : width - inset]
    return np.ascontiguousarray(regions.reshape(len(tiles.table), -1))
