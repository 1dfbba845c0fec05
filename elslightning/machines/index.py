"""Cells of patches that look alike: where the weight of a noisy patch lies is known without going through all."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from elslightning.machines.approximate_loops import assign, sort_cells, take_patches

DIRECTIONS = 24
"""Principal directions in which cells are told apart and described."""
TRAINED_ON = 40_000
"""Patches that directions and cells are learned from."""
BLOCK = 2**15
"""Patches that are held at once."""
MOST_CELLS = 4096
BYTES = (np.arange(256, dtype=np.float32) / np.float32(127.5) - 1).astype(np.float32)


class Candidates(NamedTuple):
    """The patches around some locations of some images: those that the pixels of a border class may copy from.

    Patch number k is around location k % len(table) of image members[k // len(table)].
    """

    images: np.ndarray
    """(N, channel, pixel), bytes or floating point."""
    members: np.ndarray
    """Indices of the images that count."""
    table: np.ndarray
    """(location, P²) int64: the pixels of each location's window; -1 beyond the border."""
    root: np.ndarray | None = None
    """(P²,) square roots of how much each pixel counts in a distance; None: all alike."""

    def __len__(self) -> int:
        return len(self.members) * len(self.table)

    @property
    def dim(self) -> int:
        return self.images.shape[1] * self.table.shape[1]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """These patches, (n, channel · P²) float32."""
        out = np.empty((len(numbers), self.dim), np.float32)
        levels = BYTES if self.images.dtype == np.uint8 else BYTES[:0]
        take_patches(self.images, self.members, self.table, numbers, levels, out)
        return out

    def weighed(self, patches: np.ndarray) -> np.ndarray:
        """Patches whose plain distance is the one that counts."""
        return patches if self.root is None else patches * np.tile(self.root, self.images.shape[1])


@dataclass(frozen=True)
class Cells:
    """Some candidates in cells, each described as a Gaussian along principal directions.

    Attributes:
        order: (M,) int32 patch numbers, cell by cell, those of a cell in random order.
        starts: (cell + 1,) where each begins.
        centre: (dim,) of all candidates.
        basis: (dim, direction) orthonormal.
        means, variances: (cell, direction) along them, relative to the centre.
        rest: (cell,) mean variance along each direction that is left out.
    """

    order: np.ndarray
    starts: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    rest: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(cell,) how many candidates each has."""
        return np.diff(self.starts)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(value.nbytes for value in vars(self).values())


def cell_count(candidates: int) -> int:
    """How many cells so many candidates have: about their square root, a power of two, at most `MOST_CELLS`."""
    return int(min(MOST_CELLS, 2 ** max(0, round(np.log2(np.sqrt(candidates))))))


def build(candidates: Candidates, seed: int, threads: int) -> Cells:
    """Cells by k-means on two levels, in principal directions, learned from some of the candidates.

    Memory: 6 bytes per candidate while it works, 4 afterwards.
    """
    count, dim = len(candidates), candidates.dim
    random = np.random.default_rng(seed)
    some = np.unique(random.integers(0, count, min(count, TRAINED_ON)))
    sample = candidates.weighed(candidates.of(some)).astype(np.float64)
    centre = sample.mean(axis=0)
    _, vectors = np.linalg.eigh((sample - centre).T @ (sample - centre))
    basis = np.ascontiguousarray(vectors[:, ::-1][:, : min(DIRECTIONS, dim)], np.float32)
    centre = centre.astype(np.float32)
    points = np.unique((sample.astype(np.float32) - centre) @ basis, axis=0)
    wanted = cell_count(count)
    first = int(2 ** np.ceil(np.log2(wanted) / 2))
    coarse, near = _means(points, first, seed)
    fine = np.stack([_means(points[near == k], wanted // first, seed)[0] for k in range(first)])

    starts = np.arange(0, count, BLOCK)
    cells = np.empty(count, np.uint16)

    def work(part: np.ndarray) -> list[np.ndarray]:
        found = [np.zeros(wanted, np.int64), *(np.zeros((wanted, basis.shape[1])) for _ in range(2)), np.zeros(wanted)]
        for start in part:
            numbers = np.arange(start, min(start + BLOCK, count))
            patches = candidates.weighed(candidates.of(numbers)) - centre
            along = patches @ basis
            left = np.maximum(np.einsum("nd,nd->n", patches, patches) - np.einsum("nd,nd->n", along, along), 0)
            assign(along, coarse, fine, cells[start : start + BLOCK], left, *found)
        return found

    with ThreadPoolExecutor(threads) as pool:
        # As many parts for any number of threads: sums are the same.
        parts = list(pool.map(work, np.array_split(starts, min(8, len(starts)))))
    counts, sums, squares, rests = (sum(arrays) for arrays in zip(*parts, strict=True))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    order = np.empty(count, np.int32)
    sort_cells(cells, bounds, seed, order)
    full = np.maximum(counts, 1)
    means = sums / full[:, None]
    variances = np.maximum(squares / full[:, None] - means**2, 0)
    rest = rests / full / max(1, dim - basis.shape[1])
    return Cells(order, bounds, centre, basis, *(part.astype(np.float32) for part in (means, variances, rest)))


def _means(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (count, d) of the points by k-means, and each point's own; where points are fewer, centres repeat."""
    from sklearn.cluster import KMeans  # takes a second to import

    if count == 1 or len(points) <= count:
        if len(points) == 0:
            return np.zeros((count, points.shape[1]), np.float32), np.zeros(0, np.int64)
        picked = np.arange(count) % len(points)
        return (points.mean(axis=0)[None] if count == 1 else points[picked]), np.arange(len(points)) * (count > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than centres: then some cells are empty
        found = KMeans(count, init="random", n_init=1, max_iter=8, random_state=seed % 2**31).fit(points)
    return found.cluster_centers_.astype(np.float32), found.labels_
