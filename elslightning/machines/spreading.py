"""Spreading: what leads for a pixel is looked at by its neighbours."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from elslightning.machines.approximate import TILES, Pool
from elslightning.machines.index import Candidates
from elslightning.machines.leading_loops import lead_tiles
from elslightning.machines.looking import Looked
from elslightning.machines.ranking import Ranking
from elslightning.machines.tiles import Tiles


class Extent(NamedTuple):
    """Height and width of an image, and whether it goes on around its border."""

    height: int
    width: int
    circular: bool


class Found(NamedTuple):
    """What is known of some pixels: for each of the leading candidates its squared distance, where it comes among
    equally far ones, its image and the pixel in it; and sums over all candidates, as `lead_tiles` makes them."""

    far: np.ndarray
    ranks: np.ndarray
    images: np.ndarray
    places: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], kept: int) -> "Found":
        """Nothing yet."""
        far, ranks = np.full((*shape, kept), np.inf, np.float32), np.full((*shape, kept), np.iinfo(np.int64).max)
        images, places = np.full((2, *shape, kept), -1)
        return cls(far, ranks, images, places, np.zeros((*shape, 2)))

    def ranking(self, drawn: np.ndarray, power: float) -> Ranking:
        """With sums that are relative to the nearest one; they were to the nearest that was `drawn` (pixel,), and are
        those of the leading ones where these have more. `power` is what a squared distance costs in nats."""
        nearest = self.far[..., 0].astype(np.float64)
        closer = np.where(self.sums[..., 0] > 0, drawn - nearest, 0)
        farther = self.far - np.where(np.isfinite(nearest), nearest, 0)[..., None]
        scale, weights = np.exp(-power * closer), np.exp(-power * farther)
        weight = scale * self.sums[..., 0]
        moment = scale * (self.sums[..., 1] + closer * self.sums[..., 0])
        leading = weights.sum(axis=-1)
        leads = leading > weight
        spread = np.where(weights > 0, weights * np.where(np.isfinite(farther), farther, 0), 0).sum(axis=-1)
        sums = (np.where(leads, leading, weight), np.where(leads, spread, moment))
        return Ranking(*(torch.from_numpy(values) for values in (self.far, self.places, self.images, *sums)))


class Group:
    """Tiles of some noisy images that share their candidates.

    Args:
        pool: those candidates.
        images, preferred, extent, kept: as in `_lead`.
    """

    def __init__(self, pool: Pool, images: np.ndarray, preferred: np.ndarray, extent: Extent, kept: int) -> None:
        tiles, self.pool, self.extent = pool.tiles, pool, extent
        regions = Candidates(images, np.arange(len(images)), tiles.asked)
        self.regions = regions.of(np.arange(len(regions)))
        self.own = np.tile(tiles.pixels, (len(images), 1))
        self.image = np.repeat(np.arange(len(images)), len(tiles.asked))
        self.preferred = preferred[self.image]
        self.centres, self.around = _centres(tiles), _around(self.own, tiles.shape, extent)
        self.found = Found.empty(self.own.shape, kept)

    def tell(self, whole: Found) -> None:
        """Writes what is found into the whole (image, pixel)."""
        tile, pixel = (self.own >= 0).nonzero()
        for values, part in zip(whole, self.found, strict=True):
            values[self.image[tile], self.own[tile, pixel]] = part[tile, pixel]

    def draw(self, colder: float = 1.0) -> None:
        """Looks at as many candidates as tiles may draw; by weights at so many times less noise only for what leads."""
        budgets = np.full(len(self.own), self.pool.most)
        draws, sums = self.pool.draws, self.found.sums
        if colder > 1:
            draws, sums = copy.copy(draws), np.empty_like(sums)
            draws.rate = np.float32(draws.rate * colder)

        def work(start: int, stop: int) -> None:
            for some, looked, _, _ in draws.looked(self.regions[start:stop], budgets[start:stop]):
                first, last, _ = some.indices(stop - start)
                self._look(looked, slice(start + first, start + last), sums)

        self._share(work)

    def spread(self, whole: Found) -> None:
        """Looks at what leads for the pixels in and around a tile, as far from it as that is from them, and at the same
        images at its own place."""
        begin, near = self.own[:, :1, None], self.around[:, :, None]
        images, places = (values[self.image[:, None], self.around] for values in (whole.images, whole.places))
        width = self.extent.width
        rows, columns = (
            (begin // width + places // width - near // width),
            begin % width + places % width - near % width,
        )
        if self.extent.circular:
            rows, columns = rows % self.extent.height, columns % width
        moved = np.stack([rows * width + columns, np.broadcast_to(begin, places.shape)], axis=1)
        numbers = self._numbers(
            np.stack([images, images], axis=1).reshape(len(images), -1), moved.reshape(len(images), -1)
        )
        numbers.sort(axis=1)
        new = (numbers >= 0) & (np.diff(numbers, axis=1, prepend=-1) != 0)
        counts = new.sum(axis=1)
        starts, flat = np.cumsum(counts) - counts, numbers[new]
        likely, unused = np.ones(len(flat), np.float32), np.empty_like(self.found.sums)

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            self._look(Looked(flat, likely, starts[part], counts[part]), part, unused)

        self._share(work)

    def _numbers(self, images: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """Those of candidates in these images (tile, n), or -1, whose tile would begin at these pixels; -1 where there
        is none. Beyond the border a pixel may stand for another one, which is a candidate as well."""
        bank, tiles = self.pool.candidates, self.pool.tiles
        reach = tiles.patch_size // 2 * (self.extent.width + 1)
        known = tiles.origins + reach if len(tiles.origins) else self.centres[:, 0]
        order = np.argsort(known)
        at = order[np.searchsorted(known, begins, sorter=order).clip(max=len(known) - 1)]
        position = np.zeros(len(bank.images), np.int64)
        position[bank.members] = np.arange(len(bank.members))
        numbers = position[images] * len(known) + at
        return np.where((images >= 0) & (known[at] == begins), numbers, -1).astype(np.int32)

    def _look(self, looked: Looked, part: slice, sums: np.ndarray) -> None:
        """What some tiles look at goes into what they have found, and into sums (tile, pixel, 2)."""
        pool, regions = self.pool, self.regions[part]
        lead_tiles(
            *looked,
            np.stack([regions, regions], axis=1),
            pool.source,
            pool.tiles.geometry,
            pool.across,
            pool.signal,
            pool.rate,
            self.extent[:3],
            self.centres,
            self.own[part],
            self.preferred[part],
            tuple(values[part] for values in self.found[:4]),
            sums[part],
        )

    def _share(self, work: Callable[[int, int], None]) -> None:
        """Threads do the work for tiles from one on to before another."""
        count, threads = len(self.own), torch.get_num_threads()
        portion = max(1, min(TILES, -(-count // (4 * threads))))
        starts = range(0, count, portion)
        with ThreadPoolExecutor(threads) as workers:
            list(workers.map(work, starts, [min(start + portion, count) for start in starts]))


def _centres(tiles: Tiles) -> np.ndarray:
    """(location, pixel) which pixel of an image each pixel of a tile copies from a candidate there; -1 for none."""
    height, width, _, _, size = tiles.geometry
    inset = size // 2
    regions = tiles.table.reshape(-1, height, width)[:, inset : height - inset, inset : width - inset]
    return np.ascontiguousarray(regions.reshape(len(tiles.table), -1))


def _around(own: np.ndarray, shape: tuple[int, int], extent: Extent) -> np.ndarray:
    """(tile, n) the pixels in and around tiles whose own begin with `own` (tile, pixel); beyond the border the last."""
    sides = []
    for begins, length, whole in zip(np.divmod(own[:, 0], extent.width), shape, extent[:2], strict=True):
        places = begins[:, None] + np.arange(-1, length + 1)
        sides.append(places % whole if extent.circular else places.clip(0, whole - 1))
    return (sides[0][:, :, None] * extent.width + sides[1][:, None, :]).reshape(len(own), -1)
