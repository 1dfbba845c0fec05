"""Softmax averages over very many patches, with an error bar: few draws where the weight is, and all where it is most.

A query's candidates lie in cells (`elslightning.machines.index`). From a Gaussian that stands for each cell the spread
that it adds to the average is known beforehand, and a query draws from cells in proportion to it (Neyman's allocation
in stratified sampling), without replacement, all of a cell where that is most of it. Every cell that it does not visit
is represented by at least two draws that all queries share, so that every candidate can be drawn. With
W = Σ_c N_c/n_c Σ w and S likewise with values, S/W is the average, and its variance to first order is that of
Σ w (v - S/W) over W². Queries whose error is above what is asked, or rests on a single draw, draw four times as many,
and so on; in the end all candidates are looked at, where there are not too many, or the query is called doubtful.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from elslightning.machines.approximate_loops import add_pilots, add_visits, allot, by_cell, foreseen
from elslightning.machines.index import Candidates, Cells

LEAST = 32
"""Fewer draws than these are not worth a visit to a cell."""
FIRST = 1024
"""Draws of the first round."""
ROUNDS = 7
"""Each with four times the draws of the last."""
ALL = 2**12
"""So many candidates are all looked at."""
EXHAUSTED = 2**21
"""Of so many candidates all are looked at where draws do not do."""
PILOT = 2048
"""Draws that all queries share, beside two of every cell."""
UNEVEN = 0.1
"""The share of the weight that a single draw may stand for: where few candidates are all that counts, one that
was missed might count more than they."""
TRUST = 0.3
"""The variance that cells are described to have, as Gaussians, counts by this factor: an error below it would rest on
draws that have missed what is heaviest."""
RANGE = 2.0
"""Pixels of training images lie in [-1, 1]: no two averages are further apart, so nothing is known less well."""
TAILS = 2.0
"""Away from a cell's mean its spread falls as if its variance were so many times as great."""
QUERIES = 2048
"""Queries that are worked on at once."""


class Average(NamedTuple):
    """The average of some queries.

    Attributes:
        mean: (query, channel) float64.
        error: (query, channel) its standard error.
        doubtful: (query,) whether the error is above what was asked, or cannot be trusted: too much rests on single
            draws.
        draws: how many pairs of query and candidate were looked at.
    """

    mean: np.ndarray
    error: np.ndarray
    doubtful: np.ndarray
    draws: int


class Pool:
    """The candidates of a border class at one noise level.

    Args:
        candidates, cells: and their index.
        centre: of the window: which pixel of a patch is its value.
        alpha_bar: signal power in (0, 1).
        seed: of the draws.
    """

    def __init__(self, candidates: Candidates, cells: Cells, alpha_bar: float, seed: int) -> None:
        self.candidates, self.cells = candidates, cells
        self.signal, self.noise = math.sqrt(alpha_bar), 1 - alpha_bar
        self.sizes = cells.sizes
        self.dtype = np.float32 if candidates.dim * 2.0**-24 * alpha_bar / self.noise < 1e-3 else np.float64
        # Where the draws of each cell begin: its members lie in random order, and the last is followed by the first.
        random = np.random.default_rng([seed, *np.frombuffer(np.float64(alpha_bar).tobytes(), np.uint32)])
        self.offsets = (random.random(len(self.sizes)) * self.sizes).astype(np.int64)
        self._pilots()
        self.moments = [self._expectation(power) for power in (1, 2)]

    def members(self, cell: int, first: int, last: int) -> np.ndarray:
        """The numbers of the first-th to last-th draw of a cell."""
        places = (self.offsets[cell] + np.arange(first, last)) % self.sizes[cell]
        return self.cells.order[self.cells.starts[cell] + places]

    def keys(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What queries (…, dim + 1) are multiplied with for log-weights, (dim + 1, n), and values (n, channel)."""
        patches = self.candidates.of(numbers)
        size = self.candidates.table.shape[1]
        values = patches[:, size // 2 :: size].copy()
        patches = self.candidates.weighed(patches).astype(self.dtype)
        power = np.einsum("nd,nd->n", patches, patches) * (-0.5 * self.signal**2 / self.noise)
        return np.concatenate([patches * self.dtype(self.signal / self.noise), power[:, None]], axis=1).T, values

    def _pilots(self) -> None:
        share = np.ceil(PILOT * self.sizes / max(1, self.sizes.sum())).astype(np.int64)
        counts = np.minimum(self.sizes, np.maximum(2, share))
        self.pilots = counts
        self.pilot_starts = np.concatenate([[0], np.cumsum(counts)])
        numbers = np.concatenate([self.members(cell, 0, count) for cell, count in enumerate(counts.tolist())])
        self.pilot_keys, self.pilot_values = self.keys(numbers)

    def _expectation(self, power: int) -> list[np.ndarray]:
        """What the logarithm of N (E w^power)^(1/power) of each cell is made of, see `expected`."""
        cells, a, s = self.cells, self.signal, self.noise / power
        variances = cells.variances.astype(np.float64)
        precision = 1 / (s + a**2 * variances)  # (cell, direction)
        left = self.candidates.dim - cells.basis.shape[1]
        rest = 1 / (s + a**2 * cells.rest.astype(np.float64))
        logs = np.log(s * precision).sum(axis=1) + left * np.log(s * rest)
        if power > 1:  # cells have heavier tails than a Gaussian
            precision = 1 / (s + a**2 * TAILS * variances)
            rest = 1 / (s + a**2 * TAILS * cells.rest.astype(np.float64))
        shift = a * cells.means
        constant = np.log(np.maximum(self.sizes, 1e-300)) + (logs - (shift**2 * precision).sum(axis=1)) / (2 * power)
        square = np.concatenate([precision, rest[:, None]], axis=1) / (-2 * power)
        return [np.ascontiguousarray(x.T, np.float32) for x in (square, shift * precision / power, constant)]

    def expected(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log N E w and log N sqrt(E w²) of every cell for every query, (query, cell) each, were the cell Gaussian."""
        away = queries - np.float32(self.signal) * self.cells.centre
        along = away @ self.cells.basis
        left = np.maximum(np.einsum("nd,nd->n", away, away) - np.einsum("nd,nd->n", along, along), 0)
        squares = np.concatenate([along**2, left[:, None]], axis=1)
        first, second = (squares @ square + along @ linear + constant for square, linear, constant in self.moments)
        first[:, self.sizes == 0] = second[:, self.sizes == 0] = -np.inf
        return first, second

    def average(self, queries: np.ndarray, accuracy: float, threads: int) -> Average:
        """The average of each query.

        Args:
            queries: (query, dim) float32 noisy patches, weighed like the candidates.
            accuracy: the standard error to reach, per channel.
            threads: how many to use.
        """
        count, channels = len(queries), self.candidates.images.shape[1]
        found = Average(np.empty((count, channels)), np.empty((count, channels)), np.zeros(count, bool), 0)
        with ThreadPoolExecutor(threads) as pool:
            parts = [slice(start, start + QUERIES) for start in range(0, count, QUERIES)]
            draws = sum(
                pool.map(lambda part: self._rounds(queries[part], accuracy, *(x[part] for x in found[:3])), parts)
            )
        return found._replace(draws=draws)

    def _rounds(
        self, queries: np.ndarray, accuracy: float, mean: np.ndarray, error: np.ndarray, doubtful: np.ndarray
    ) -> int:
        masses, spreads = self.expected(queries)
        rows, total, budget = np.arange(len(queries)), 0, float(FIRST)
        candidates = len(self.candidates)
        budgets = [FIRST * 4.0**k for k in range(ROUNDS) if FIRST * 4**k < candidates]
        if candidates <= ALL:
            budgets = [math.inf]
        elif candidates <= EXHAUSTED:
            budgets.append(math.inf)
        for budget in budgets:
            mean[rows], error[rows], doubtful[rows], draws = self._round(
                queries[rows], masses[rows], spreads[rows], budget
            )
            doubtful[rows] |= (error[rows] > accuracy).any(axis=1)
            total += draws
            rows = rows[doubtful[rows]]
            if not len(rows):
                break
        return total

    def _round(
        self, queries: np.ndarray, masses: np.ndarray, spreads: np.ndarray, budget: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        count, channels = len(queries), self.candidates.images.shape[1]
        counts, visits = np.empty(masses.shape, np.int32), np.zeros(len(self.sizes), np.int64)
        if math.isinf(budget):
            counts[:] = self.sizes
            visits[:] = count * (self.sizes > 0)
        else:
            allot(spreads, self.sizes, budget, LEAST, counts, visits)
        starts = np.concatenate([[0], np.cumsum(visits)])
        who, draws = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
        by_cell(counts, starts, who, draws)
        asked = np.concatenate([queries, np.ones((count, 1), np.float32)], axis=1).astype(self.dtype)
        sums = np.zeros((starts[-1], 3 + 4 * channels))
        sums[:, 0] = -np.inf
        for cell in np.flatnonzero(visits):
            part = slice(starts[cell], starts[cell + 1])
            self._visit(int(cell), asked, who[part], draws[part], sums[part])
        best = np.zeros((count, 3))
        best[:, 0] = -np.inf
        total, spread = np.zeros((count, 2 * channels)), np.zeros((count, 1 + 2 * channels))
        add_visits(who, draws, np.repeat(self.sizes, visits), sums, best, total, spread)
        logits = asked @ self.pilot_keys
        highest = np.maximum(best[:, 0], logits.max(axis=1))
        weights = np.exp((logits - highest[:, None]).astype(np.float32))
        add_pilots(weights, highest, self.pilot_values, self.pilot_starts, self.sizes, counts, best, total, spread)
        mean = total[:, :channels] / best[:, 1:2]
        variance = np.maximum(total[:, channels:] / best[:, 1:2] - mean**2, 0)
        uneven = np.empty(count)
        foreseen(masses, spreads, counts, self.pilots, self.sizes, uneven)
        square = spread[:, 2::2] - 2 * mean * spread[:, 1::2] + mean**2 * spread[:, :1]
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.sqrt(np.maximum(square / best[:, 1:2] ** 2, TRUST * variance * uneven[:, None]))
        error = np.fmin(error, RANGE)
        return (
            mean,
            error,
            (best[:, 2] > UNEVEN * best[:, 1]) & (not math.isinf(budget)),
            int(draws.sum()) + logits.size,
        )

    def _visit(self, cell: int, asked: np.ndarray, who: np.ndarray, draws: np.ndarray, sums: np.ndarray) -> None:
        """Adds the draws from a cell to the sums of its visits, see `add_visits`."""
        most, first, last = int(draws.max()), 0, LEAST
        while first < most:
            last = min(last, most, first + 1024)
            rows = np.flatnonzero(draws > first)
            keys, values = self.keys(self.members(cell, first, last))
            ones = np.ones((len(values), 1), np.float32)
            squares = np.concatenate([ones, values, values**2], axis=1)
            channels = values.shape[1]
            for few in np.array_split(rows, -(-len(rows) // 256)):
                logits = asked[who[few]] @ keys
                old = sums[few]
                highest = np.maximum(old[:, 0], logits.max(axis=1))
                weights = (logits - highest[:, None]).astype(np.float32)
                np.exp(weights, out=weights)
                scale = np.exp(old[:, 0] - highest)
                new = np.empty_like(old)
                new[:, 0] = highest
                w = weights @ squares
                np.square(weights, out=weights)
                w2 = weights @ squares
                new[:, 1] = old[:, 1] * scale + w[:, 0]
                new[:, 2] = old[:, 2] * scale**2 + w2[:, 0]
                for c in range(channels):
                    at = 3 + 4 * c
                    new[:, at] = old[:, at] * scale + w[:, 1 + c]
                    new[:, at + 1] = old[:, at + 1] * scale**2 + w2[:, 1 + c]
                    new[:, at + 2] = old[:, at + 2] * scale**2 + w2[:, 1 + channels + c]
                    new[:, at + 3] = old[:, at + 3] * scale + w[:, 1 + channels + c]
                sums[few] = new
            first, last = last, 2 * last
