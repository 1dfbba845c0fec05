"""Estimating: the pooled patch machines with an error bar, in a time that hardly grows with the bank."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.approximate import Pool
from elslightning.machines.index import Candidates, Cells, build
from elslightning.machines.local import LocalScoreMachine
from elslightning.machines.patches import PatchMachine
from elslightning.system.errors import InputError

EXACT = "exact"
AUTO = "auto"
AUTO_ACCURACY = 0.02
"""The standard error that is as good as none for the agreement of samples."""
AUTO_FROM = 2**25
"""Candidates of a pixel from which on `auto` takes draws. Below, compiled loops over all are quicker
(`benchmarks/full_size.py`)."""


class Estimate(NamedTuple):
    """A posterior mean and how well it is known.

    Attributes:
        x0: (batch, channel, height, width), the posterior mean.
        error: of the same shape, its standard error; 0 where it is exact.
        doubtful: (batch, height, width), where the error is above what was asked after all draws that are worthwhile,
            or rests on too few of them to be trusted.
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
        images = images if images.dtype == torch.uint8 else images.float()
        self.images = images.flatten(2).numpy()
        self.labels = None if machine.labels is None else machine.labels.cpu().numpy()
        self.cells: dict[tuple[int, int, int], Cells] = {}
        self.evaluated = self.doubted = 0

    def members(self, label: int | None) -> np.ndarray:
        """Indices of the images that count for a label."""
        if self.labels is None or label is None:
            return np.arange(len(self.images))
        return np.flatnonzero(self.labels == label)

    def candidates(self, label: int | None, table: np.ndarray) -> Candidates:
        """The patches in the windows of a table, see `Candidates`."""
        return Candidates(self.images, self.members(label), table)

    def pool(self, label: int | None, size: int, table: np.ndarray, alpha_bar: float, seed: int) -> Pool:
        """The candidates of the locations of a table at a noise level."""
        candidates = self.candidates(label, table)
        key = (-1 if label is None else label, size, int(table[0, size * size // 2]))
        if key not in self.cells:
            self.cells[key] = build(candidates, seed=key[1] * 2**16 + key[2], threads=torch.get_num_threads())
        return Pool(candidates, self.cells[key], alpha_bar, seed)

    @property
    def nbytes(self) -> int:
        """Memory that the indices take."""
        return sum(cells.nbytes for cells in self.cells.values())


def classes(machine: PatchMachine, patch_size: int) -> Iterator[np.ndarray]:
    """The pixels of each border class that shares candidates at several locations."""
    width = machine.images.shape[3]
    for region in machine._regions(patch_size):
        if not (region.pool_rows or region.pool_columns):
            continue
        pixels = region.rows[:, None] * width + region.columns
        if not region.pool_rows:
            yield from pixels.cpu().numpy()
        elif not region.pool_columns:
            yield from pixels.T.cpu().numpy()
        else:
            yield pixels.flatten().cpu().numpy()


def windows(height: int, width: int, pixels: np.ndarray, patch_size: int, padding_mode: str) -> np.ndarray:
    """(pixel, P²) int64: the pixels in the window around each; -1 beyond the border, unless it wraps."""
    away = np.arange(patch_size) - patch_size // 2
    rows = (pixels // width)[:, None] + away
    columns = (pixels % width)[:, None] + away
    if padding_mode == "circular":
        rows, columns = rows % height, columns % width
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return np.where(inside, rows[:, :, None] * width + columns[:, None, :], -1).reshape(len(pixels), -1)


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
    """The posterior means of images of one label and patch size.

    Pixels that have their own location only are exact; so are border classes of few candidates.
    """
    batch, channels, height, width = x_t.shape
    images = x_t.detach().cpu().float().flatten(2).numpy()
    groups = list(classes(machine, patch_size))
    x0 = np.empty((batch, channels, height * width))
    if sum(map(len, groups)) < height * width:
        labels = None if label is None else torch.full((batch,), label, device=x_t.device)
        own = LocalScoreMachine(machine.images, machine.labels, scales=patch_size, memory_budget=machine.memory_budget)
        x0[:] = own(x_t, alpha_bar, labels).flatten(2).double().cpu().numpy()
    error, doubtful = np.zeros_like(x0), np.zeros((batch, height * width), bool)
    levels = alpha_bar.cpu()
    done = 0
    for level in levels.unique():
        rows = (levels == level).nonzero()[:, 0].numpy()
        for pixels in groups:
            table = windows(height, width, pixels, patch_size, machine.padding_mode)
            pool = estimator.pool(label, patch_size, table, float(level), seed)
            asked = Candidates(images, rows, table)
            found = pool.average(asked.of(np.arange(len(asked))), accuracy, torch.get_num_threads())
            for into, part in ((x0, found.mean), (error, found.error)):
                into[rows[:, None], :, pixels] = part.reshape(len(rows), len(pixels), channels)
            doubtful[rows[:, None], pixels] = found.doubtful.reshape(len(rows), len(pixels))
            done += len(rows) * len(pixels)
            tick(done / (batch * height * width))

    def shaped(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(x_t.device, x_t.dtype).reshape(x_t.shape)

    return Estimate(shaped(x0), shaped(error), torch.from_numpy(doubtful).reshape(batch, height, width).to(x_t.device))
