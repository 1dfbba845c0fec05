"""What cells of patches are expected to weigh, before any of them is looked at."""

import math

import numpy as np

from elslightning.machines.index import Candidates, Cells

TAILS = 2.0
"""Away from a cell's mean its spread falls as if its variance were so many times as great."""


class Expectation:
    """log2 of N sqrt(E w²), what each cell of N candidates adds to the spread, were the cell a Gaussian.

    Args:
        candidates, cells: and their index.
        alpha_bar: signal power in (0, 1).

    Attributes:
        keys: (feature, cell) float32, what `features` are multiplied with.
    """

    def __init__(self, candidates: Candidates, cells: Cells, alpha_bar: float) -> None:
        self.candidates, self.cells = candidates, cells
        self.signal = a = math.sqrt(alpha_bar)
        s = (1 - alpha_bar) / 2  # of w²
        left = candidates.dim - cells.basis.shape[1]
        logs = -np.log1p(a**2 * cells.variances / s).sum(axis=1) - left * np.log1p(a**2 * cells.rest / s)
        # Cells have heavier tails than a Gaussian.
        precision = 1 / (s + a**2 * TAILS * cells.variances.astype(np.float64))
        rest = 1 / (s + a**2 * TAILS * cells.rest.astype(np.float64))
        shift = a * cells.means
        constant = np.log(np.maximum(cells.sizes, 1e-30)) + (logs - (shift**2 * precision).sum(axis=1)) / 4
        keys = [-precision.T / 4, -rest[None] / 4, (shift * precision).T / 2, constant[None]]
        self.keys = (np.concatenate(keys) / math.log(2)).astype(np.float32)
        self.keys[:, cells.sizes == 0] = 0
        self.keys[-1, cells.sizes == 0] = -1e30

    def features(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tile, feature) of regions (tile, dim), and where they lie along the principal directions."""
        cells = self.cells
        away = self.candidates.weighed(regions) - np.float32(self.signal) * cells.centre
        along = away @ cells.basis
        left = np.maximum(np.einsum("nd,nd->n", away, away) - np.einsum("nd,nd->n", along, along), 0)
        return np.concatenate([along**2, left[:, None], along, np.ones_like(along[:, :1])], axis=1), along
