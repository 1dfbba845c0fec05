"""Estimating: the pooled patch machines with an error bar, in a time that hardly grows with the bank."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.approximate import Pool
from elslightning.machines.index import MEMBERS, Candidates, Cells, build
from elslightning.machines.memory import default_budget
from elslightning.machines.patches import PatchMachine
from elslightning.machines.shelf import Shelf
from elslightning.machines.tiles import Tiles, tilings
from elslightning.system.errors import InputError
from elslightning.system.keeping import digest

EXACT = "exact"
AUTO = "auto"
AUTO_ACCURACY = 0.05
"""The standard error that leaves r of samples with exact ones at .998 (docs/performance.md)."""
AUTO_FROM = 2**22
"""Candidates of a pixel from which on `auto` takes draws: those of 5,350 images of 28×28. Compiled loops over all take
several times as long there (`benchmarks/full_size.py`)."""
AUTO_FROM_GPU = 2**25
"""The same where a GPU would look at all: of 43,000 such images. On all 60,000 an H200 took 3.1 s a sample, and its 16
processor cores 0.6 s by draws (docs/performance.md)."""
SMALLEST = 8
"""The side of the smallest images whose regions are read row by row."""
COPIED = 2**12
"""Images that are copied at once."""
MOST_KEPT = 2
"""Banks, or ways to see their border, whose indices are kept for the next machine."""
Key: TypeAlias = tuple[int, bytes, int]
"""Of an index: a label or -1, the window along an axis, and the first pixel of the tiles."""


class Form(NamedTuple):
    """How a machine looks and paints.

    Attributes:
        patch_size: P.
        window: (P,) float32, how much each pixel of a window counts along an axis.
        response: (odd,) float32, at most P, how much each pixel around a location gets of what it says along an axis.
    """

    patch_size: int
    window: np.ndarray
    response: np.ndarray


class Estimate(NamedTuple):
    """A posterior mean and how well it is known.

    Attributes:
        x0: (batch, channel, height, width), the posterior mean.
        error: of the same shape, its standard error; 0 where it is exact.
        doubtful: (batch, height, width), where the error is above what was asked after all draws that are worthwhile,
            and so is that of the image.
    """

    x0: Tensor
    error: Tensor
    doubtful: Tensor


def check_accuracy(accuracy: float | str) -> None:
    """Raises InputError unless this is "exact", "auto", or a standard error."""
    if accuracy in (EXACT, AUTO):
        return
    if isinstance(accuracy, bool | str) or not 0 < accuracy <= 1:
        raise InputError(f"accuracy must be exact, auto, or a standard error above 0 and at most 1, not {accuracy!r}")


class Estimator:
    """The indices of a bank, by label, window and border class, each built when it is first needed, and kept as long as
    there is memory for it.

    Args:
        machine: whose candidates they are.
        shelf: where they are kept for later processes, if anywhere.
    """

    def __init__(self, machine: PatchMachine, shelf: Shelf | None = None) -> None:
        self.shelf = shelf
        images = machine.images.detach().cpu()
        self.shape = images.shape[2:]
        images = images.flatten(2)
        self.padded = _padded(images)
        self.images = (images.float() if images.dtype != torch.uint8 else images).numpy()
        if self.padded is not None:
            self.images = self.padded[1:-1]
        self.labels = None if machine.labels is None else machine.labels.cpu().numpy()
        self.cells: OrderedDict[Key, Cells] = OrderedDict()

    @classmethod
    def of(cls, machine: PatchMachine, folder: str | Path | None) -> "Estimator":
        """That of a machine, or of another before it with the very same bank and border, if it is one of the last;
        indices that are kept in a folder are taken from there."""
        bank = digest((machine.images, machine.labels, machine.padding_mode))
        key = bank, None if folder is None else Path(folder).absolute()
        with _LOCK:
            found = _LAST.pop(key, None) or cls(machine, None if folder is None else Shelf(folder, bank))
            _LAST[key] = found
            while len(_LAST) > MOST_KEPT:
                _LAST.popitem(last=False)
        return found

    def members(self, label: int | None) -> np.ndarray:
        """Indices of the images that count for a label."""
        if self.labels is None or label is None:
            return np.arange(len(self.images))
        return np.flatnonzero(self.labels == label)

    def candidates(self, label: int | None, tiles: Tiles) -> Candidates:
        """What the pixels of some tiles may copy from."""
        return Candidates(self.images, self.members(label), tiles.table, tiles.root)

    def prepare(self, label: int | None, groups: Sequence[Tiles], budget: int | None) -> None:
        """Builds what is missing for these tiles, as many indices at a time as there are threads; of others those go
        that were not used for longest, until all take no more than the budget, in bytes; None is a quarter of the
        memory that is free."""
        missing = {key: tiles for tiles in groups if (key := _key(label, tiles)) not in self.cells}
        threads = torch.get_num_threads()

        def made(tiles: Tiles, wait: bool) -> Cells | None:
            candidates = self.candidates(label, tiles)
            each = max(MEMBERS, len(candidates) // tiles.most_cells)

            def make() -> Cells:
                with _numpy().limit(limits=1, user_api="openmp"):
                    return build(candidates, tiles.patch_size * 2**16 + int(tiles.pixels[0, 0]), threads, each)

            return self.shelf.get((_key(label, tiles), each), candidates, make, wait) if self.shelf else make()

        # The greatest first: nothing else is left to do beside it otherwise. Then those that other processes were at.
        order = sorted(missing, key=lambda key: -missing[key].table.size)
        with ThreadPoolExecutor(threads) as pool:
            for wait in (False, True):
                left = [key for key in order if key not in self.cells]
                found = pool.map(made, [missing[key] for key in left], itertools.repeat(wait))
                self.cells.update((key, cells) for key, cells in zip(left, found, strict=True) if cells is not None)
        used = [_key(label, tiles) for tiles in groups]
        for key in used:
            self.cells.move_to_end(key)
        budget = budget or default_budget(torch.device("cpu"))
        while self.nbytes > budget and next(iter(self.cells)) not in used:
            self.cells.popitem(last=False)

    def pool(self, label: int | None, tiles: Tiles, alpha_bar: float, seed: int) -> Pool:
        """The candidates of some tiles at a noise level, which were prepared."""
        # A region reaches at most half an image beyond the border, and 16 pixels.
        least = max(SMALLEST, tiles.patch_size)
        padded = self.padded if len(tiles.origins) and min(self.shape) >= least else None
        cells = self.cells[_key(label, tiles)]
        return Pool(self.candidates(label, tiles), cells, tiles, alpha_bar, seed, self.shape[1], padded)

    @property
    def nbytes(self) -> int:
        """Memory that the indices take."""
        return sum(cells.nbytes for cells in self.cells.values())


_LOCK = Lock()
_LAST: OrderedDict[tuple[str, Path | None], Estimator] = OrderedDict()
"""By bank and border, and where indices are kept, the one that was asked for last at the end."""


def _key(label: int | None, tiles: Tiles) -> Key:
    return -1 if label is None else label, tiles.window.tobytes(), int(tiles.pixels[0, 0])


@cache
def _numpy() -> ThreadpoolController:
    """What tells NumPy how many threads to use; to find its library takes a while."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """NumPy takes one thread: threads of ours call it, and its own would only wait for each other."""
    return _numpy().limit(limits=1, user_api="blas")


def _padded(images: Tensor) -> np.ndarray | None:
    """Images (N, channel, pixel) as bytes, with an image more at either end; None where they are not made of bytes."""
    padded = np.zeros((len(images) + 2, *images.shape[1:]), np.uint8)
    for start in range(0, len(images), COPIED):
        some = images[start : start + COPIED]
        bytes_ = some if some.dtype == torch.uint8 else ((some + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        if some.dtype != torch.uint8 and not torch.allclose(to_floats(bytes_), some.float(), rtol=0, atol=1e-6):
            return None
        padded[1 + start : 1 + start + len(some)] = bytes_.numpy()
    return padded


def estimate(
    machine: PatchMachine,
    estimator: Estimator,
    x_t: Images,
    alpha_bar: AlphaBar,
    label: int | None,
    form: Form,
    accuracy: float,
    seed: int,
    tick: Callable[[float], None],
) -> Estimate:
    """The posterior means of images of one label and form; border classes of few candidates are exact."""
    batch, channels, height, width = x_t.shape
    images = x_t.detach().cpu().float().flatten(2).numpy()
    groups = list(tilings(machine, *form))
    with one_thread():
        estimator.prepare(label, groups, machine.memory_budget)
    cover = np.zeros(height * width)
    for tiles in groups:
        painted = tiles.painted(tiles.asked)
        np.add.at(cover, painted[painted >= 0], tiles.responses(tiles.pixels >= 0)[painted >= 0])
    x0 = np.zeros((batch, height * width, channels))
    square, doubtful = np.zeros_like(x0), np.zeros((batch, height * width), bool)
    levels, threads, done = alpha_bar.cpu(), torch.get_num_threads(), 0
    for level in levels.unique():
        rows = (levels == level).nonzero()[:, 0].numpy()
        with one_thread(), ThreadPoolExecutor(threads) as workers:
            known = itertools.repeat(label), groups, itertools.repeat(float(level)), itertools.repeat(seed)
            pools = list(workers.map(estimator.pool, *known))
            begun, works = [], []
            for tiles, pool in zip(groups, pools, strict=True):
                regions = Candidates(images, rows, tiles.asked)
                own, pixels = tiles.pixels >= 0, tiles.painted(tiles.asked)
                share = np.where(pixels >= 0, tiles.responses(own) / cover[pixels], 0)
                own, pixels, share = (np.tile(values, (len(rows), 1)) for values in (own, pixels, share))
                asked = (regions.of(np.arange(len(regions))), own, share)
                found, some = pool.begin(*asked, accuracy, threads, len(tiles.asked))
                begun.append((pixels, share, np.repeat(rows, len(tiles.asked)), found))
                works += some
            # Those of all groups: whoever waited for the last of one would have nothing to do.
            for count, _ in enumerate(workers.map(lambda work: work(), works), 1):
                tick((done + len(rows) * count / len(works)) / batch)
        for pixels, share, image, found in begun:
            where = share > 0
            into = (image[where.nonzero()[0]], pixels[where])
            np.add.at(x0, into, (share[:, :, None] * found.mean)[where])
            np.add.at(square, into, (share[:, :, None] * found.error)[where] ** 2)
            np.logical_or.at(doubtful, into, found.doubtful[where])
        done += len(rows)
    error = np.sqrt(square)
    doubtful &= error.max(axis=2) > accuracy

    def shaped(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.transpose(0, 2, 1)).to(x_t.device, x_t.dtype).reshape(x_t.shape)

    return Estimate(shaped(x0), shaped(error), torch.from_numpy(doubtful).reshape(batch, height, width).to(x_t.device))
