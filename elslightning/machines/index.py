"""Cells of patches that look alike: where the weight of a noisy patch lies is known without going through all.

Patches lie in cells of a few hundred, each described as a Gaussian.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from elslightning.machines.index_loops import arrange, assign, describe, encode, project, sort_cells, take_patches
from elslightning.machines.lanes import PART
from elslightning.machines.scanning_loops import SCANNED

DIRECTIONS = PART
"""Principal directions in which cells are told apart and described."""
SAMPLED = 2**13
"""Patches that directions are learned from."""
TRAINED_ON = 40_000
"""Patches that cells are learned from."""
BLOCK = 2**12
"""Patches that are held at once."""
MEMBERS = 2048
"""Candidates of a cell, about, if nothing else is asked."""
PICKED = 4
"""Patches that centres of cells are picked from, for each."""
CELLS = 64
"""Cells that a cell of the level above is divided into, at most: on three levels."""
STEP = 0.35
"""The step of codes, as a part of how far patches lie from the centres of their cells."""
PORTIONS = 16
"""Into how many parts all patches are divided among threads."""
BEYOND = np.float32(1e15)
"""Where no point is."""
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
        take_patches(self.images, self.members, self.table, numbers, self.levels, np.float32(1), out)
        return out

    @property
    def levels(self) -> np.ndarray:
        """What bytes stand for; without entries where images are not bytes."""
        return BYTES if self.images.dtype == np.uint8 else BYTES[:0]

    @property
    def roots(self) -> np.ndarray:
        """(dim,) float32 by which patches are weighed; without entries they are not."""
        if self.root is None:
            return np.empty(0, np.float32)
        return np.tile(self.root, self.images.shape[1]).astype(np.float32)

    def centres(self, patches: np.ndarray) -> np.ndarray:
        """The pixels in the middle of patches, (n, channel)."""
        size = self.table.shape[1]
        return patches[:, size // 2 :: size].copy()

    def weighed(self, patches: np.ndarray) -> np.ndarray:
        """Patches whose plain distance is the one that counts."""
        return patches if self.root is None else patches * self.roots


@dataclass(frozen=True)
class Cells:
    """Some candidates in cells, each described as a Gaussian along principal directions.

    Attributes:
        order: (M,) int32 patch numbers, cell by cell, those of a cell in random order.
        starts: (cell + 1,) where each begins.
        centre: (dim,) of all candidates.
        basis: (dim, direction) orthonormal.
        means, variances: (cell, direction) along them, relative to the centre.
        rest: (cell,) mean square along each direction that is left out.
        centres: (cell, direction) around which its candidates lie, along the directions.
        steps: (direction,) by which codes go.
        places: (cell,) where its codes begin.
        codes: (byte,) uint8 where each candidate lies along the directions: see `elslightning.machines.index_loops`.
    """

    order: np.ndarray
    starts: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    rest: np.ndarray
    centres: np.ndarray
    steps: np.ndarray
    places: np.ndarray
    codes: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(cell,) how many candidates each has."""
        return np.diff(self.starts)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(value.nbytes for value in vars(self).values())


def branches(candidates: int, each: int = MEMBERS) -> tuple[int, int, int]:
    """Into how many parts the cells of so many candidates are divided on each of three levels: powers of two."""
    levels = max(0, round(np.log2(max(1, candidates / each))))
    most = CELLS.bit_length() - 1
    lowest = min(most, -(-levels // 3))
    middle = min(most, (levels - lowest + 1) // 2)
    return 2 ** min(most, levels - lowest - middle), 2**middle, 2**lowest


def build(candidates: Candidates, seed: int, threads: int, each: int = MEMBERS) -> Cells:
    """Cells by k-means in principal directions, learned from some of the candidates; those of the lowest level lie
    around patches taken at random; so many that each holds about `each`.

    Memory: 24 bytes per candidate while it works, 12 afterwards, and 300 per cell.
    """
    count, dim = len(candidates), candidates.dim
    random = np.random.default_rng(seed)
    first, second, third = branches(count, each)
    centre, basis = _directions(candidates.weighed(candidates.of(_some(count, SAMPLED, random))))

    # Weighed patches less their centre, along the basis, without making them.
    roots = candidates.roots if candidates.root is not None else np.ones(dim, np.float32)
    keys = np.zeros((dim, PART), np.float32)
    keys[:, : basis.shape[1]] = roots[:, None] * basis
    shift, beyond = centre @ basis, np.float32(centre @ centre)
    patches = (candidates.images, candidates.members, candidates.table)
    measures = (candidates.levels, keys, roots**2, -2 * roots * centre)

    def along(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        found, left = np.empty((last - first, PART), np.float32), np.empty(last - first, np.float32)
        project(*patches, first, *measures, found, left)
        inside = found[:, : basis.shape[1]] - shift
        return inside, np.maximum(left + beyond - np.einsum("nd,nd->n", inside, inside), 0)

    some = _some(count, max(TRAINED_ON, PICKED * first * second * third), random)
    points = (candidates.weighed(candidates.of(some)) - centre) @ basis
    points = random.permutation(_distinct(points, random))
    top = _means(points[:TRAINED_ON], first, seed)
    near = _nearest(points, top)
    middle = np.stack([_means(points[near == k][: TRAINED_ON // 8], second, seed) for k in range(first)])
    near = near * second + _within(points, near, middle)
    bottom = np.stack([_repeated(points[near == k], third) for k in range(first * second)])
    centres = (*(_grouped(level) for level in (top[None], middle, bottom)), np.array([second, third]))
    lowest = bottom.reshape(-1, bottom.shape[2])
    near = near * third + _within(points, near, bottom)
    steps = np.maximum((points - lowest[near]).std(axis=0), 1e-6).astype(np.float32) * np.float32(STEP)

    cells = np.empty(count, np.int32)
    codes = np.empty((count, -(-len(steps) // 2)), np.uint8)
    total = first * second * third
    starts = range(0, count, BLOCK)

    def work(part: range) -> list[np.ndarray]:
        found = [np.zeros(total, np.int64), *(np.zeros((total, basis.shape[1])) for _ in range(2)), np.zeros(total)]
        for start in part:
            inside, left = along(start, min(start + BLOCK, count))
            assign(inside, *centres, cells[start : start + BLOCK])
            encode(inside, cells[start : start + BLOCK], lowest, steps, codes[start : start + BLOCK])
            describe(inside, left, cells[start : start + BLOCK], *found)
        return found

    with ThreadPoolExecutor(threads) as pool:
        # As many for any number of threads: sums are the same.
        parts = list(pool.map(work, [starts[k::PORTIONS] for k in range(min(PORTIONS, len(starts)))]))
    counts, sums, squares, rests = (np.sum(arrays, axis=0) for arrays in zip(*parts, strict=True))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    order = np.empty(count, np.int32)
    sort_cells(cells, bounds, seed, order)
    groups = beginnings(counts, len(steps))
    arranged = np.zeros(groups[-1], np.uint8)
    edges = np.linspace(0, total, min(PORTIONS, total) + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        arranging = (codes, order, bounds, groups[:-1])
        list(pool.map(lambda first, last: arrange(*arranging, first, last, arranged), edges[:-1], edges[1:]))
    full = np.maximum(counts, 1)
    means = sums / full[:, None]
    variances = np.maximum(squares / full[:, None] - means**2, 0)
    rest = rests / full / max(1, dim - basis.shape[1])
    means, variances, rest = (part.astype(np.float32) for part in (means, variances, rest))
    return Cells(order, bounds, centre, basis, means, variances, rest, lowest, steps, groups[:-1], arranged)


def beginnings(sizes: np.ndarray, directions: int) -> np.ndarray:
    """Where the codes of cells of these sizes (cell,) begin, in bytes, and where the last ends: (cell + 1,)."""
    return np.concatenate([[0], np.cumsum(-(-sizes // SCANNED))]) * SCANNED * -(-directions // 2)


def _directions(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of some patches (n, dim), and their principal directions (dim, direction)."""
    centre = sample.mean(axis=0, dtype=np.float64)
    away = sample - centre.astype(np.float32)
    _, vectors = np.linalg.eigh((away.T @ away).astype(np.float64))
    return centre.astype(np.float32), np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS], np.float32)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest of the centres (k, d) to each point (n, d)."""
    half = np.einsum("kd,kd->k", centres, centres) / 2
    parts = np.array_split(points, -(-len(points) // BLOCK))
    return np.concatenate([np.argmin(half - part @ centres.T, axis=1) for part in parts])


def _within(points: np.ndarray, near: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest of the centres (cell, k, d) of each point's own cell."""
    found = np.zeros(len(points), np.int64)
    for k in range(len(centres)):
        mine = np.flatnonzero(near == k)
        if len(mine):
            found[mine] = _nearest(points[mine], centres[k])
    return found


def _some(count: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    """About so many of `count` numbers, each once, in increasing order."""
    return np.unique(random.integers(0, count, min(count, wanted)))


def _distinct(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Points (n, d), none twice: equal ones lie at the same place along any direction."""
    along = np.einsum("nd,d->n", points.astype(np.float64), random.normal(size=points.shape[1]))
    return points[np.unique(along, return_index=True)[1]]


def _grouped(centres: np.ndarray) -> np.ndarray:
    """Centres (cell, k, d) as `assign` takes them."""
    cells, count, dim = centres.shape
    padded = np.full((cells, -(-count // PART) * PART, dim), BEYOND, np.float32)
    padded[:, :count] = centres
    return np.ascontiguousarray(padded.reshape(cells, -1, PART, dim).swapaxes(2, 3))


def _repeated(points: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of the points (n, d), again and again if there are fewer."""
    return points[np.arange(count) % len(points)] if len(points) else np.zeros((count, points.shape[1]), np.float32)


def _means(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Centres (count, d) of the points, no two alike, by k-means; where points are fewer, centres repeat."""
    from sklearn.cluster import KMeans  # takes a second to import

    if len(points) <= count:
        return _repeated(points, count)
    if count == 1:
        return points.mean(axis=0)[None]
    found = KMeans(count, init="random", n_init=1, max_iter=8, random_state=seed % 2**31).fit(points)
    return found.cluster_centers_.astype(np.float32)
