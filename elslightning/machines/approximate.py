"""Softmax averages over very many patches, with an error bar: few draws where the weight is, and all where it is most.

A tile of pixels looks for its candidates together (`elslightning.machines.tiles`); these lie in cells of regions that
look alike (`elslightning.machines.index`). From a Gaussian that stands for each cell the spread that it adds to the
average is known beforehand, and a tile draws from cells in proportion to it (Neyman's allocation in stratified
sampling), without replacement, all of a cell where that is most of it; a cell that would get less than a few draws gets
them with a probability, and counts for more then (Horvitz and Thompson's estimator), so that every candidate can be
drawn. With W = Σ_c N_c/(n_c p_c) Σ w and S likewise with values, S/W is the average of a pixel, and its variance to
first order is that of Σ w (v - S/W) over W²; and at least (1 - f)/n of the variance of all candidates, where n is the
number of equal ones that the weights amount to and f the share of the expected spread that was drawn: draws that have
missed what is heaviest do not know it. As long as the root mean square error of an image's pixels is above what is
asked, tiles that are above it draw more; and so do those with a pixel that rests on a single draw. From the third round
on, what cells were seen to add counts, instead of what was expected of them. In the end all candidates are looked at,
where there are not too many, or the pixel is called doubtful.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from elslightning.machines.allotting_loops import allot, list_visits, sort_visits
from elslightning.machines.approximate_loops import FIXED, PER_CHANNEL, add_visits
from elslightning.machines.foreseeing import Expectation
from elslightning.machines.index import BYTES, Candidates, Cells
from elslightning.machines.lanes import PART
from elslightning.machines.tiles import Tiles

FIRST = 4096
"""Draws of the first round."""
GROWTH = 16
"""A round makes at most so many times the draws of the last, and at least a quarter of that."""
MOST = 2**20
"""Draws of the last round, at most."""
EXPLORING = 1 / 16
"""The part of the draws that goes to all cells alike, whatever is expected of them."""
ALL = 2**12
"""So many candidates are all looked at."""
EXHAUSTED = 2**21
"""Of so many candidates all are looked at where draws do not do."""
UNEVEN = 0.2
"""The share of the weight that a single draw may stand for: where few candidates are all that counts, one that
was missed might count more than they."""
SPREAD = 0.04
"""Candidates that were missed differ from those that were seen by at least such a variance."""
STRANGE = 32.0
"""Where so many powers of two less weight is found than cells promise as Gaussians, a tile is like nothing in the bank,
and where to look is not known: then all that was not drawn counts as missed."""
RANGE = 2.0
"""Pixels of training images lie in [-1, 1]: no two averages are further apart, so nothing is known less well."""
TILES = 2**12
"""Tiles that are worked on at once."""
VISITS = 2**22
"""Visits of tiles to cells that are listed at once."""
LOOKED = 2**22
"""Tiles times cells whose expectations are held at once."""
GOLDEN = (math.sqrt(5) - 1) / 2


class Average(NamedTuple):
    """The averages of the pixels of some tiles.

    Attributes:
        mean: (tile, pixel, channel) float64.
        error: of the same shape, its standard error.
        doubtful: (tile, pixel) whether the error is above what was asked, and with it that of the image; or cannot be
            trusted: too much rests on single draws.
        draws: how many candidates all tiles have looked at.
    """

    mean: np.ndarray
    error: np.ndarray
    doubtful: np.ndarray
    draws: int


NOTHING = (np.empty(0, np.int32), np.empty(0, np.float32))


class Known(NamedTuple):
    """What earlier rounds tell of some tiles.

    Attributes:
        tops: (tile, pixel) the greatest log-weight that was seen.
        weights: (tile, pixel) the whole weight, relative to it.
        cells: of every tile, cells and what part of the spread each was seen to have.
    """

    tops: np.ndarray
    weights: np.ndarray
    cells: list[tuple[np.ndarray, np.ndarray]]


class Pool:
    """The candidates of some tiles at one noise level.

    Args:
        candidates, cells: and their index.
        tiles: whose regions they are.
        alpha_bar: signal power in (0, 1).
        seed: of the draws.
    """

    def __init__(self, candidates: Candidates, cells: Cells, tiles: Tiles, alpha_bar: float, seed: int) -> None:
        self.candidates, self.cells, self.tiles = candidates, cells, tiles
        self.signal, self.noise = math.sqrt(alpha_bar), 1 - alpha_bar
        self.rate = np.float32(0.5 / (self.noise * math.log(2)))
        random = np.random.default_rng([seed, *np.frombuffer(np.float64(alpha_bar).tobytes(), np.uint32)])
        sizes = cells.sizes
        # Where the draws of each cell begin: its members lie in random order, and the last is followed by the first.
        self.offsets = (random.random(len(sizes)) * sizes).astype(np.int64)
        self.fewest = np.minimum(sizes, PART).astype(np.float32)
        # Neighbouring cells are alike, so their numbers are far apart.
        chances = (random.random() + GOLDEN * np.arange(len(sizes))) % 1
        self.thresholds = np.where(sizes > 0, chances * self.fewest, np.inf).astype(np.float32)
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
        portion = max(1, min(TILES // together, -(-images // threads))) * together
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
        count, candidates = len(regions), len(self.candidates)
        limit = min(MOST, candidates // 2)
        budgets = np.full(count, math.inf if candidates <= ALL else min(FIRST, limit), float)
        image, rows, total = np.arange(count) // together, np.arange(count), 0
        uneven = np.zeros_like(doubtful)
        known = Known(np.full(own.shape, -np.inf), np.full(own.shape, np.inf), [NOTHING] * count)
        while len(rows):
            for few in _portions(rows, budgets[rows], candidates):
                mean[few], error[few], uneven[few], draws = self._round(regions[few], budgets[few], known, few)
                total += draws
            error[rows], uneven[rows] = error[rows] * own[rows, :, None], uneven[rows] & own[rows]
            square = np.bincount(image, (error**2).mean(axis=2).sum(axis=1)) / np.bincount(image, own.sum(axis=1))
            above = (square > accuracy**2)[image]
            doubtful[:] = uneven | ((error.max(axis=2) > accuracy) & above[:, None])
            here = np.sqrt((error**2).mean(axis=2).sum(axis=1) / np.maximum(1, own.sum(axis=1)))
            last, growth = budgets >= limit, np.clip((1.2 * here / accuracy) ** 2, GROWTH / 4, GROWTH)
            more = doubtful.any(axis=1) & np.isfinite(budgets) & (~last | (candidates <= EXHAUSTED))
            rows = np.flatnonzero(more)
            budgets[rows] = np.where(last[rows], math.inf, np.minimum(limit, budgets[rows] * growth[rows]))
        return total

    def _round(
        self, regions: np.ndarray, budgets: np.ndarray, known: "Known", rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Means, errors, whether they are uneven, of tiles with so many draws each; and how many were made.

        What is `known` of these tiles, its `rows`, tells where to draw, and becomes what these draws tell.
        """
        count, channels = len(regions), self.candidates.images.shape[1]
        bank, cells, tiles = self.candidates, self.cells, self.tiles
        sums = np.zeros((count, tiles.pixels.shape[1], FIXED + PER_CHANNEL * channels))
        sums[:, :, 0] = known.tops[rows]
        near = np.clip(regions, -np.float32(self.signal), np.float32(self.signal))
        asked = np.stack([near, 2 * regions - near], axis=1)
        missed, logs = np.empty(count), np.full(count, -np.inf)
        visits = self._visits(regions, budgets, [known.cells[row] for row in rows], missed, logs)
        seen = np.empty(len(visits[0]), np.float32)
        order, starts = np.empty(len(visits[0]), np.int64), np.empty(len(cells.starts), np.int64)
        sort_visits(visits[0], visits[2], starts, order)
        levels = BYTES if bank.images.dtype == np.uint8 else BYTES[:0]
        draws = add_visits(
            order,
            starts,
            *visits[1:],
            asked,
            bank.images,
            bank.members,
            bank.table,
            tiles.valid,
            levels,
            cells.order,
            cells.starts,
            self.offsets,
            tiles.geometry,
            np.float32(self.signal),
            self.rate,
            known.weights[rows],
            sums,
            seen,
        )
        bounds = np.searchsorted(visits[1], np.arange(1, count))
        parts = zip(*(np.split(part, bounds) for part in (visits[0], seen)), strict=True)
        for row, part in zip(rows.tolist(), parts, strict=True):
            # The first draws do not know what their parts are of.
            known.cells[row] = part if np.isfinite(known.weights[row]).all() else NOTHING
        known.tops[rows], known.weights[rows] = sums[:, :, 0], sums[:, :, 1]
        weight = sums[:, :, 1, None]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            first, second = sums[:, :, 4::4] / weight, sums[:, :, 5::4] / weight
            posterior = np.maximum(second - first**2, 0)
            square = sums[:, :, 7::4] - 2 * first * sums[:, :, 6::4] + first**2 * sums[:, :, 3, None]
            beyond = ((regions - near) ** 2 @ np.tile(tiles.root**2, channels)).astype(np.float64)
            seen = (sums[:, :, 0] + np.log2(sums[:, :, 1])).mean(axis=1) - self.rate * beyond
            missed[seen < logs - STRANGE] = 1
            # The greatest weight is 1: the part of one candidate is 1 / weight.
            unseen = np.maximum(posterior, SPREAD * self.signal**2) * missed[:, None, None] / np.maximum(weight, 1)
            error = np.sqrt(np.maximum(square / weight**2, unseen))
        error = np.fmin(error / self.signal, RANGE)
        uneven = ~(sums[:, :, 2] <= UNEVEN * sums[:, :, 1])
        return np.nan_to_num(first / self.signal), error, uneven, draws

    def _visits(
        self,
        regions: np.ndarray,
        budgets: np.ndarray,
        known: list[tuple[np.ndarray, np.ndarray]],
        missed: np.ndarray,
        logs: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Cell, tile, number of draws and probability of what tiles draw; `missed` and `logs` as in `allot`."""
        cells = self.cells
        if math.isinf(budgets[0]):
            missed[:] = 0
            which = np.flatnonzero(cells.sizes).astype(np.int32)
            queries = np.repeat(np.arange(len(regions), dtype=np.int32), len(which))
            counts = np.tile(cells.sizes[which].astype(np.int32), len(regions))
            return np.tile(which, len(regions)), queries, counts, np.ones(len(queries), np.float32)
        features, found = self.expected.features(regions), []
        some = max(1, LOOKED // len(cells.sizes))
        floors = budgets * EXPLORING / len(cells.sizes)
        for start in range(0, len(regions), some):
            part = slice(start, start + some)
            expected = features[part] @ self.expected.keys
            numbers = np.empty(len(expected), np.int64)
            bits = expected.view(np.int32)
            begins = np.cumsum([0, *(len(cells_) for cells_, _ in known[part])])
            before, seen = (np.concatenate(parts) for parts in zip(*known[part], strict=True))
            allot(
                expected,
                bits,
                budgets[part],
                floors[part],
                cells.sizes,
                self.fewest,
                self.thresholds,
                begins,
                before,
                seen,
                numbers,
                missed[part],
                logs[part],
            )
            total = int(numbers.sum())
            visits = (*(np.empty(total, np.int32) for _ in range(3)), np.empty(total, np.float32))
            list_visits(expected, cells.sizes, self.fewest, self.thresholds, start, *visits)
            found.append(visits)
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _portions(rows: np.ndarray, budgets: np.ndarray, candidates: int) -> Iterator[np.ndarray]:
    """Rows in portions of so few visits that they fit into memory; those that look at everything by themselves."""
    for some in (np.isfinite(budgets), np.isinf(budgets)):
        visits = np.cumsum(np.minimum(budgets[some], candidates) * ((1 + EXPLORING) / PART))
        if some.any():
            yield from np.split(rows[some], np.flatnonzero(np.diff(visits // VISITS)) + 1)
