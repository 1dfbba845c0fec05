"""Estimating: the pooled patch machines with an error bar, in a time that hardly grows with the bank."""

import itertools
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.approximate import Pool
from elslightning.machines.index import MEMBERS, Candidates, Cells, build
from elslightning.machines.patches import PatchMachine
from elslightning.machines.tiles import Tiles, tilings
from elslightning.system.errors import InputError

EXACT = "exact"
AUTO = "auto"
AUTO_ACCURACY = 0.05
"""The standard error that leaves r of samples with exact ones at .998 (docs/performance.md)."""
AUTO_FROM = 2**22
"""Candidates of a pixel from which on `auto` takes draws: those of 5,350 images of 28×28. Compiled loops over all take
several times as long there (`benchmarks/full_size.py`)."""
SMALLEST = 8
"""The side of the smallest images whose regions are read row by row."""
COPIED = 2**12
"""Images that are copied at once."""


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
    """The indices of a bank, by label, patch size and border class, each built when it is first needed.

    Args:
        machine: whose candidates they are.
    """

    def __init__(self, machine: PatchMachine) -> None:
        images = machine.images.detach().cpu()
        self.shape = images.shape[2:]
        images = images.flatten(2)
        self.padded = _padded(images)
        self.images = (images.float() if images.dtype != torch.uint8 else images).numpy()
        if self.padded is not None:
            self.images = self.padded[1:-1]
        self.labels = None if machine.labels is None else machine.labels.cpu().numpy()
        self.cells: dict[tuple[int, int, int], Cells] = {}
        self.evaluated = self.doubted = 0

    def members(self, label: int | None) -> np.ndarray:
        """Indices of the images that count for a label."""
        if self.labels is None or label is None:
            return np.arange(len(self.images))
        return np.flatnonzero(self.labels == label)

    def pool(self, label: int | None, tiles: Tiles, alpha_bar: float, seed: int) -> Pool:
        """The candidates of some tiles at a noise level."""
        candidates = Candidates(self.images, self.members(label), tiles.table, tiles.root)
        key = (-1 if label is None else label, tiles.patch_size, int(tiles.pixels[0, 0]))
        if key not in self.cells:
            self.cells[key] = build(
                candidates,
                seed=key[1] * 2**16 + key[2],
                threads=torch.get_num_threads(),
                each=max(MEMBERS, len(candidates) // tiles.most_cells),
            )
        # A region reaches at most half an image beyond the border, and 16 pixels.
        least = max(SMALLEST, tiles.patch_size)
        padded = self.padded if len(tiles.origins) and min(self.shape) >= least else None
        return Pool(candidates, self.cells[key], tiles, alpha_bar, seed, self.shape[1], padded)

    @property
    def nbytes(self) -> int:
        """Memory that the indices take."""
        return sum(cells.nbytes for cells in self.cells.values())


@cache
def _numpy() -> ThreadpoolController:
    """What tells NumPy how many threads to use; to find its library takes a while."""
    return ThreadpoolController()


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
    patch_size: int,
    accuracy: float,
    seed: int,
    tick: Callable[[float], None],
) -> Estimate:
    """The posterior means of images of one label and patch size; border classes of few candidates are exact."""
    batch, channels, height, width = x_t.shape
    images = x_t.detach().cpu().float().flatten(2).numpy()
    groups = list(tilings(machine, patch_size))
    x0 = np.empty((batch, channels, height * width))
    error, doubtful = np.zeros_like(x0), np.zeros((batch, height * width), bool)
    levels = alpha_bar.cpu()
    done = 0
    for level, tiles in itertools.product(levels.unique(), groups):
        rows = (levels == level).nonzero()[:, 0].numpy()
        regions = Candidates(images, rows, tiles.asked)
        pixels = np.tile(tiles.pixels, (len(rows), 1))
        own = pixels >= 0
        # Threads of ours call NumPy, whose own would only wait for each other.
        with _numpy().limit(limits=1, user_api="blas"):
            pool = estimator.pool(label, tiles, float(level), seed)
            found = pool.average(
                regions.of(np.arange(len(regions))), own, accuracy, torch.get_num_threads(), len(tiles.asked)
            )
        image, pixel = np.repeat(rows, len(tiles.asked))[own.nonzero()[0]], pixels[own]
        for into, part in ((x0, found.mean), (error, found.error)):
            into[image, :, pixel] = part[own]
        doubtful[image, pixel] = found.doubtful[own]
        done += len(pixel)
        tick(done / (batch * height * width))

    def shaped(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(x_t.device, x_t.dtype).reshape(x_t.shape)

    return Estimate(shaped(x0), shaped(error), torch.from_numpy(doubtful).reshape(batch, height, width).to(x_t.device))
