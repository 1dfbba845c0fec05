"""Softmax averages over very many patches, with an error bar: few draws where the weight is, and all where it is most.

A tile of pixels looks for its candidates together (`elslightning.machines.tiles`); these lie in cells of regions that
look alike (`elslightning.machines.index`). From a Gaussian that stands for each cell the spread that it adds to the
average is known beforehand. A tile goes through the candidates of the cells that promise most, by codes of where each
lies along the principal directions, and looks at some of them, the likelier the more its code promises, all whose
probability comes out as 1; of other cells it looks at a few candidates each. Every candidate has its probability p,
and counts 1/p times (Poisson sampling, and Horvitz and Thompson's estimator): with W = Σ w/p and S likewise with
values, S/W is the average of a pixel, and its variance to first order is Σ w² (v - S/W)² (1 - p)/p² over W²; and at
least f/n of the variance of all candidates, where n is the number of equal ones that the weights amount to and f the
share of what is expected of those that were not looked at: draws that have missed what is heaviest do not know it. For
the same reason the error counts for up to twice as much where single draws make most of it. As long as the root mean
square error of an image's pixels is above what is asked, tiles draw more, in such numbers that all draws are fewest
(Neyman's allocation). In the end all candidates are looked at, where there are not too many, or the pixel is called
doubtful.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from elslightning.machines.approximate_loops import FIXED, PER_CHANNEL, average_tiles
from elslightning.machines.index import Candidates, Cells
from elslightning.machines.looking import Draws
from elslightning.machines.painting_loops import paint_tiles
from elslightning.machines.region_loops import BARRED
from elslightning.machines.tiles import Tiles

FIRST = 512
"""Draws of the first round."""
GROWTH = 16
"""A round makes at most so many times the draws of the last, and at least an eighth of that."""
MOST = 2**15
"""Draws of the last round, at most; of tiles of few pixels fewer, so that each has as many."""
SHARING = 8
"""Pixels of the smallest tile that may make so many."""
ALL = 2**12
"""So many candidates are all looked at."""
EXHAUSTED = 2**17
"""Of so many candidates all are looked at where draws do not do."""
SPREAD = 0.04
"""Candidates that were missed differ from those that were seen by at least such a variance."""
HEAVY = 1.0
"""How much larger the error is where a single draw has all of the spread: others like it may have been missed."""
STRANGE = 32.0
"""Where so many powers of two less weight is found than cells promise as Gaussians, a tile is like nothing in the bank,
and where to look is not known: then all that was not drawn counts as missed."""
RANGE = 2.0
"""Pixels of training images lie in [-1, 1]: no two averages are further apart, so nothing is known less well."""
TILES = 2**12
"""Tiles that are worked on at once."""


class Average(NamedTuple):
    """The averages of the pixels of some tiles.

    Attributes:
        mean: (tile, painted pixel, channel) float64.
        error: of the same shape, its standard error.
        doubtful: (tile, painted pixel) whether the error is above what was asked, and with it that of the image.
    """

    mean: np.ndarray
    error: np.ndarray
    doubtful: np.ndarray


class Pool:
    """The candidates of some tiles at one noise level.

    Args:
        candidates, cells: and their index.
        tiles: whose regions they are.
        alpha_bar: signal power in (0, 1).
        seed: of the draws.
        across: pixels of a row of an image.
        padded: the images as bytes, with an image more at either end, if all regions are parts of images as they are.
    """

    def __init__(
        self,
        candidates: Candidates,
        cells: Cells,
        tiles: Tiles,
        alpha_bar: float,
        seed: int,
        across: int = 0,
        padded: np.ndarray | None = None,
    ) -> None:
        self.candidates, self.tiles = candidates, tiles
        self.across, self.padded = across, padded
        self.draws = Draws(candidates, cells, alpha_bar, seed)
        self.signal, self.rate = self.draws.signal, self.draws.rate

    def begin(
        self,
        regions: np.ndarray,
        own: np.ndarray,
        share: np.ndarray,
        accuracy: float,
        threads: int,
        together: int,
    ) -> tuple[Average, list[Callable[[], None]]]:
        """The averages of the pixels that tiles paint, and what has to be called until they are there, in any order and
        by any threads.

        Args:
            regions: (tile, dim) float32 noisy regions.
            own: (tile, pixel) which pixels of the tiles count.
            share: (tile, painted pixel) which part of the image's pixel each average is.
            accuracy: the root mean square of the standard errors to reach.
            threads: how many there are.
            together: over how many tiles, one after the other, that is the mean: those of an image.
        """
        count = len(own)
        shape = (*share.shape, self.candidates.images.shape[1])
        found = Average(np.zeros(shape), np.zeros(shape), np.zeros(share.shape, bool))
        images = -(-count // together)
        portion = max(1, min(TILES // together, -(-images // (4 * threads)))) * together

        def work(part: slice) -> None:
            mine = Average(*(values[part] for values in found))
            self._rounds(regions[part], own[part], share[part], accuracy, together, mine)

        return found, [partial(work, slice(start, start + portion)) for start in range(0, count, portion)]

    def _rounds(
        self,
        regions: np.ndarray,
        own: np.ndarray,
        share: np.ndarray,
        accuracy: float,
        together: int,
        found: Average,
    ) -> None:
        """Round after round until the averages are good enough or no better can be had; writes into `found`."""
        mean, error, doubtful = found
        count, candidates = len(own), len(self.candidates)
        limit = self.limit
        budgets = np.full(count, math.inf if candidates <= ALL else min(FIRST, limit), float)
        image, rows = np.arange(count) // together, np.arange(count)
        variances = np.zeros(count)
        # Tiles would have the same errors otherwise, which do not even out over an image.
        numbers = np.arange(count) % together
        while len(rows):
            for some in (rows[np.isfinite(budgets[rows])], rows[np.isinf(budgets[rows])]):
                if len(some):
                    mean[some], error[some] = self._round(regions[some], own[some], budgets[some], numbers[some])
            variances[rows] = ((share[rows, :, None] * error[rows]) ** 2).mean(axis=2).sum(axis=1)
            square = np.bincount(image, variances) / np.bincount(image, share.sum(axis=1))
            above = (square > accuracy**2)[image]
            doubtful[:] = (error.max(axis=2) > accuracy) & above[:, None] & (share > 0)
            wanted = budgets.copy()
            for one in np.unique(image[above & np.isfinite(budgets)]):
                mine = (image == one) & np.isfinite(budgets)
                fixed = variances[(image == one) & ~mine].sum()
                asked = accuracy**2 * share[image == one].sum() - fixed
                wanted[mine] = more_draws(budgets[mine], variances[mine], asked)
            more = above & np.isfinite(budgets) & (wanted > 1.2 * budgets)
            last = budgets >= limit
            more &= ~last | (candidates <= EXHAUSTED)
            rows = np.flatnonzero(more)
            least = GROWTH / 8 * budgets[rows]
            budgets[rows] = np.where(last[rows], math.inf, np.minimum(limit, np.maximum(wanted[rows], least)))

    def _round(
        self, regions: np.ndarray, own: np.ndarray, budgets: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and errors of what tiles paint with so many draws each."""
        count, channels = len(regions), self.candidates.images.shape[1]
        tiles = self.tiles
        responses = tiles.responses(own)
        sums = np.zeros((count, responses.shape[1], FIXED + PER_CHANNEL * channels))
        heaps = np.zeros((*own.shape, 2))
        near = np.clip(regions, -self.signal, self.signal)
        asked = np.stack([near, 2 * regions - near], axis=1)
        source = self.source
        outside, promised = np.zeros(count), np.full(count, -np.inf)
        for part, looked, outside[part], promised[part] in self.draws.looked(regions, budgets, numbers):
            among = (*looked, asked[part], source, tiles.geometry, self.across, self.signal, self.rate)
            if tiles.hard:
                average_tiles(*among, sums[part])
            else:
                paint_tiles(*among, tiles.window, tiles.response, own[part], heaps[part], sums[part])
        if tiles.hard:
            heaps = sums[:, :, :2]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            weight = sums[:, :, 1, None]
            first, second = sums[:, :, 4::4] / weight, sums[:, :, 5::4] / weight
            posterior = np.maximum(second - first**2, 0)
            square = sums[:, :, 7::4] - 2 * first * sums[:, :, 6::4] + first**2 * sums[:, :, 3, None]
            beyond = ((regions - near) ** 2 @ np.tile(tiles.root**2, channels)).astype(np.float64)
            logs = np.where(own, heaps[:, :, 0] + np.log2(heaps[:, :, 1]), 0).sum(axis=1) / own.sum(axis=1)
            outside[logs - self.rate * beyond < promised - STRANGE] = 1
            # The greatest weight is 1: the part of one candidate is 1 / weight. What a pixel is painted with by several
            # pixels of a tile is missed by all of them together.
            parts = tiles.responses(own / np.sqrt(np.maximum(heaps[:, :, 1], 1))) / responses
            unseen = np.maximum(posterior, SPREAD * self.signal**2) * outside[:, None, None] * parts[:, :, None] ** 2
            error = np.sqrt(np.maximum(square / weight**2, unseen))
            rest = sums[:, :, 2, None] / np.sqrt(sums[:, :, 3, None])
            error *= 1 + HEAVY * np.where(np.isfinite(rest), rest, 1)
            error[tiles.responses(own & ~(heaps[:, :, 1] > 0)) > 0] = np.inf
        error = np.where(responses[:, :, None] > 0, np.fmin(error / self.signal, RANGE), 0)
        return np.nan_to_num(first / self.signal), error

    @property
    def limit(self) -> float:
        """Draws of a tile, at most."""
        return float(min(MOST * min(1, self.tiles.pixels.shape[1] / SHARING), len(self.candidates) // 2))

    @property
    def most(self) -> float:
        """The same; infinite where all candidates are looked at in the end."""
        return math.inf if len(self.candidates) <= EXHAUSTED else self.limit

    @property
    def source(self) -> tuple[np.ndarray, ...]:
        """What `take_block` takes regions from."""
        bank, tiles = self.candidates, self.tiles
        images, origins = bank.images, np.empty(0, np.int64)
        if self.padded is not None:
            images, origins = self.padded, tiles.origins
        bars = (barred(tiles.below), barred(tiles.beside))
        return images, bank.members, bank.table, bank.levels, origins, tiles.beyond, *bars


def barred(allowed: np.ndarray) -> np.ndarray:
    """By what is added to log-weights, negated: 0 for what is allowed."""
    return np.where(allowed, np.float32(0), BARRED)


def more_draws(draws: np.ndarray, variances: np.ndarray, asked: float) -> np.ndarray:
    """How many draws each of some tiles (tile,) should make, so that their variances, which fall as one over the draws,
    add up to what is asked, and all draws to as few as can be (Neyman's allocation). None makes fewer than it has, or
    more than `GROWTH` times as many."""
    rise = np.sqrt(np.maximum(variances, 0) / draws)
    few, many = 0.0, GROWTH / rise[rise > 0].min(initial=math.inf)
    wanted = draws
    for _ in range(60):
        factor = (few + many) / 2
        wanted = np.clip(factor * rise * draws, draws, GROWTH * draws)
        if (variances * draws / wanted).sum() > asked:
            few = factor
        else:
            many = factor
    return wanted
