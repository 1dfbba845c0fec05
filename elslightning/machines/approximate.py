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
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from elslightning.machines.approximate_loops import BARRED, FIXED, PER_CHANNEL, average_tiles
from elslightning.machines.foreseeing import Expectation
from elslightning.machines.index import Candidates, Cells
from elslightning.machines.scanning_loops import FALL, WORST
from elslightning.machines.tiles import Tiles

FIRST = 256
"""Draws of the first round."""
GROWTH = 16
"""A round makes at most so many times the draws of the last, and at least an eighth of that."""
MOST = 2**15
"""Draws of the last round, at most; of tiles of few pixels fewer, so that each has as many."""
SHARING = 8
"""Pixels of the smallest tile that may make so many."""
LOOKED = 16
"""Candidates that are gone through for each draw."""
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
EXPECTED = 2**22
"""Tiles times cells whose expectations are held at once."""
DICE = 2**16
"""How many random numbers tell which candidates are drawn."""
GOLDEN = (math.sqrt(5) - 1) / 2


class Average(NamedTuple):
    """The averages of the pixels of some tiles.

    Attributes:
        mean: (tile, pixel, channel) float64.
        error: of the same shape, its standard error.
        doubtful: (tile, pixel) whether the error is above what was asked, and with it that of the image.
        draws: how many candidates all tiles have looked at.
    """

    mean: np.ndarray
    error: np.ndarray
    doubtful: np.ndarray
    draws: int


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
        self.candidates, self.cells, self.tiles = candidates, cells, tiles
        self.across, self.padded = across, padded
        self.signal, self.noise = math.sqrt(alpha_bar), 1 - alpha_bar
        self.rate = np.float32(0.5 / (self.noise * math.log(2)))
        random = np.random.default_rng([seed, *np.frombuffer(np.float64(alpha_bar).tobytes(), np.uint32)])
        self.offsets = (random.random(len(cells.sizes)) * cells.sizes).astype(np.int64)
        # Neighbouring cells are alike, so their numbers are far apart.
        self.chances = ((random.random() + GOLDEN * np.arange(len(cells.sizes))) % 1).astype(np.float32)
        self.logs = np.log2(np.maximum(cells.sizes, 1)).astype(np.float32)
        self.seed = random.integers(2**32, dtype=np.uint32)
        self.dice = thrown((random.permutation(DICE) + random.random(DICE)) / DICE)
        self.expected = Expectation(candidates, cells, alpha_bar)

    def average(
        self, regions: np.ndarray, own: np.ndarray, accuracy: float, threads: int, together: int = 1
    ) -> Average:
        """The averages of the pixels of tiles.

        Args:
            regions: (tile, dim) float32 noisy regions.
            own: (tile, pixel) which pixels count.
            accuracy: the root mean square of the standard errors to reach.
            threads: how many to use.
            together: over how many tiles, one after the other, that is the mean: those of an image.
        """
        count, pixels = own.shape
        shape = (count, pixels, self.candidates.images.shape[1])
        found = Average(np.zeros(shape), np.zeros(shape), np.zeros((count, pixels), bool), 0)
        images = -(-count // together)
        portion = max(1, min(TILES // together, -(-images // (4 * threads)))) * together
        with ThreadPoolExecutor(threads) as pool:
            parts = [slice(start, start + portion) for start in range(0, count, portion)]
            draws = sum(
                pool.map(lambda part: self._rounds(regions[part], own[part], accuracy, together, found, part), parts)
            )
        return found._replace(draws=draws)

    def _rounds(
        self, regions: np.ndarray, own: np.ndarray, accuracy: float, together: int, found: Average, part: slice
    ) -> int:
        """Round after round until the averages are good enough or no better can be had; writes into `found`."""
        mean, error, doubtful = (x[part] for x in found[:3])
        (count, pixels), candidates = own.shape, len(self.candidates)
        limit = float(min(MOST * min(1, pixels / SHARING), candidates // 2))
        budgets = np.full(count, math.inf if candidates <= ALL else min(FIRST, limit), float)
        image, rows, total = np.arange(count) // together, np.arange(count), 0
        variances = np.zeros(count)
        while len(rows):
            for some in (rows[np.isfinite(budgets[rows])], rows[np.isinf(budgets[rows])]):
                if len(some):
                    mean[some], error[some], draws = self._round(regions[some], budgets[some])
                    total += draws
            error[rows] *= own[rows, :, None]
            variances[rows] = (error[rows] ** 2).mean(axis=2).sum(axis=1)
            square = np.bincount(image, variances) / np.bincount(image, own.sum(axis=1))
            above = (square > accuracy**2)[image]
            doubtful[:] = (error.max(axis=2) > accuracy) & above[:, None]
            wanted = budgets.copy()
            for one in np.unique(image[above & np.isfinite(budgets)]):
                mine = (image == one) & np.isfinite(budgets)
                fixed = variances[(image == one) & ~mine].sum()
                asked = accuracy**2 * own[image == one].sum() - fixed
                wanted[mine] = more_draws(budgets[mine], variances[mine], asked)
            more = above & np.isfinite(budgets) & (wanted > 1.2 * budgets)
            last = budgets >= limit
            more &= ~last | (candidates <= EXHAUSTED)
            rows = np.flatnonzero(more)
            least = GROWTH / 8 * budgets[rows]
            budgets[rows] = np.where(last[rows], math.inf, np.minimum(limit, np.maximum(wanted[rows], least)))
        return total

    def _round(self, regions: np.ndarray, budgets: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Means and errors of tiles with so many draws each; and how many were made."""
        count, channels = len(regions), self.candidates.images.shape[1]
        bank, cells, tiles = self.candidates, self.cells, self.tiles
        everything = math.isinf(budgets[0])
        sums = np.zeros((count, tiles.pixels.shape[1], FIXED + PER_CHANNEL * channels))
        near = np.clip(regions, -np.float32(self.signal), np.float32(self.signal))
        asked = np.stack([near, 2 * regions - near], axis=1)
        outside, promised = np.empty(count), np.empty(count)
        features, along = self.expected.features(regions)
        if everything:
            budgets = np.empty(0)
        looked = np.minimum(budgets * LOOKED, len(bank)).astype(np.int64)
        plain = self.padded is None
        draws = 0
        some = count if everything else max(1, EXPECTED // len(cells.sizes))
        for start in range(0, count, some):
            part = slice(start, start + some)
            expected = np.empty((0, 0), np.float32) if everything else features[part] @ self.expected.keys
            draws += average_tiles(
                expected,
                expected.view(np.int32),
                along[part],
                asked[part],
                looked[part],
                budgets[part],
                cells.sizes,
                self.logs,
                self.chances,
                cells.centres,
                cells.steps,
                cells.places,
                cells.codes,
                cells.order,
                cells.starts,
                self.offsets,
                self.seed,
                self.dice,
                bank.images if plain else self.padded,
                bank.members,
                bank.table,
                np.empty(0, np.int64) if plain else tiles.origins,
                tiles.beyond,
                barred(tiles.below),
                barred(tiles.beside),
                bank.levels,
                tiles.geometry,
                self.across,
                np.float32(self.signal),
                self.rate,
                sums[part],
                outside[part],
                promised[part],
            )
        weight = sums[:, :, 1, None]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            first, second = sums[:, :, 4::4] / weight, sums[:, :, 5::4] / weight
            posterior = np.maximum(second - first**2, 0)
            square = sums[:, :, 7::4] - 2 * first * sums[:, :, 6::4] + first**2 * sums[:, :, 3, None]
            beyond = ((regions - near) ** 2 @ np.tile(tiles.root**2, channels)).astype(np.float64)
            seen = (sums[:, :, 0] + np.log2(sums[:, :, 1])).mean(axis=1) - self.rate * beyond
            outside[seen < promised - STRANGE] = 1
            # The greatest weight is 1: the part of one candidate is 1 / weight.
            unseen = np.maximum(posterior, SPREAD * self.signal**2) * outside[:, None, None] / np.maximum(weight, 1)
            error = np.sqrt(np.maximum(square / weight**2, unseen))
            rest = sums[:, :, 2, None] / np.sqrt(sums[:, :, 3, None])
            error *= 1 + HEAVY * np.where(np.isfinite(rest), rest, 1)
        error = np.fmin(error / self.signal, RANGE)
        return np.nan_to_num(first / self.signal), error, draws


def barred(allowed: np.ndarray) -> np.ndarray:
    """By what is added to log-weights, negated: 0 for what is allowed."""
    return np.where(allowed, np.float32(0), BARRED)


def thrown(even: np.ndarray) -> np.ndarray:
    """Dice of `elslightning.machines.scanning_loops`, from numbers in (0, 1]."""
    return np.minimum(np.floor(-np.log2(even) / FALL) + 1, WORST).astype(np.uint8)


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
