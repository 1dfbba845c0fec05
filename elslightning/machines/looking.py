"""What tiles look at: candidates that are drawn, in proportion to what their cells and their codes promise."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from elslightning.machines.choosing_loops import choose_tiles
from elslightning.machines.foreseeing import Expectation
from elslightning.machines.index import Candidates, Cells
from elslightning.machines.scanning_loops import FALL, WORST

LOOKED = 16
"""Candidates that are gone through for each draw."""
EXPECTED = 2**22
"""Tiles times cells whose expectations are held at once."""
ROOM = 2**20
"""Candidates that are chosen at once, about."""
DICE = 2**16
"""How many random numbers tell which candidates are drawn."""
GOLDEN = (math.sqrt(5) - 1) / 2


class Looked(NamedTuple):
    """What some tiles look at.

    Attributes:
        numbers: (n,) int32 of candidates.
        likely: (n,) float32 how likely each was looked at.
        starts, counts: (tile,) where among them those of a tile begin, and how many they are.
    """

    numbers: np.ndarray
    likely: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


class Draws:
    """Draws from the candidates of some tiles at one noise level.

    Args:
        candidates, cells: and their index.
        alpha_bar: signal power in (0, 1).
        seed: of the draws.
    """

    def __init__(self, candidates: Candidates, cells: Cells, alpha_bar: float, seed: int) -> None:
        self.candidates, self.cells = candidates, cells
        self.signal = np.float32(math.sqrt(alpha_bar))
        self.rate = np.float32(0.5 / ((1 - alpha_bar) * math.log(2)))
        random = _random(seed, alpha_bar)
        self.offsets = (random.random(len(cells.sizes)) * cells.sizes).astype(np.int64)
        # Neighbouring cells are alike, so their numbers are far apart.
        self.chances = ((random.random() + GOLDEN * np.arange(len(cells.sizes))) % 1).astype(np.float32)
        self.logs = np.log2(np.maximum(cells.sizes, 1)).astype(np.float32)
        self.seed = int(random.integers(2**32))
        self.dice = _dice(seed, alpha_bar)
        self.expected = Expectation(candidates, cells, alpha_bar)

    @property
    def index(self) -> tuple[np.ndarray, ...]:
        """Of the cells, as `choose_tiles` takes it."""
        cells = self.cells
        described = (cells.sizes, self.logs, self.chances, cells.centres, cells.steps)
        return (*described, cells.places, cells.codes, cells.order, cells.starts, self.offsets)

    def looked(
        self, regions: np.ndarray, budgets: np.ndarray, numbers: np.ndarray | None = None
    ) -> Iterator[tuple[slice, Looked, np.ndarray | float, np.ndarray | float]]:
        """What tiles of regions (tile, dim) look at with so many draws each (tile,), all infinite or none, some tiles
        at a time: which they are, at what, which part of what is expected is not among it, and the logarithm of all
        that is. Tiles of different `numbers` (tile,) have draws of their own; if not given, all have them in common."""
        every = len(self.candidates)
        if math.isinf(budgets[0]):
            counts = np.full(len(regions), every)
            all_, likely = np.arange(every, dtype=np.int32), np.ones(every, np.float32)
            yield slice(None), Looked(all_, likely, np.zeros_like(counts), counts), 0.0, -math.inf
            return
        features, along = self.expected.features(regions)
        turns = np.zeros(len(regions), np.int64) if numbers is None else numbers
        turns = (self.seed + turns * int(GOLDEN * 2**32)).astype(np.uint32)
        looked = np.minimum(budgets * LOOKED, every).astype(np.int64)
        cells = len(self.cells.sizes)
        room = int(looked.max() + budgets.max()) + cells + 1 + ROOM
        chosen, likely = np.empty(room, np.int32), np.empty(room, np.float32)
        start = 0
        while start < len(regions):
            part = slice(start, min(start + max(1, EXPECTED // cells), len(regions)))
            starts, counts = np.zeros((2, part.stop - start), np.int64)
            outside, promised = np.empty((2, part.stop - start))
            expected = features[part] @ self.expected.keys
            done = choose_tiles(
                expected,
                expected.view(np.int32),
                along[part],
                looked[part],
                budgets[part],
                turns[part],
                self.index,
                self.dice,
                self.signal,
                self.rate,
                chosen,
                likely,
                starts,
                counts,
                outside,
                promised,
            )
            where = slice(start, start + done)
            yield where, Looked(chosen, likely, starts[:done], counts[:done]), outside[:done], promised[:done]
            start += done


def _random(seed: int, alpha_bar: float) -> np.random.Generator:
    """The same for the same noise level, to the last digit."""
    return np.random.default_rng([seed, *np.frombuffer(np.float64(alpha_bar).tobytes(), np.uint32)])


@lru_cache(64)
def _dice(seed: int, alpha_bar: float) -> np.ndarray:
    """For all candidates of a noise level."""
    random = _random(seed, alpha_bar).spawn(1)[0]
    return thrown((random.permutation(DICE) + random.random(DICE)) / DICE)


def thrown(even: np.ndarray) -> np.ndarray:
    """Dice of `elslightning.machines.scanning_loops`, from numbers in (0, 1]."""
    return np.minimum(np.floor(-np.log2(even) / FALL) + 1, WORST).astype(np.uint8)
