"""pspc_square: posteriors over square crops that lie inside the image."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.crops import CropMachine, Crops
from elslightning.machines.kernels import sum_dtype
from elslightning.machines.parameters import PATCH_SIZE, Parameter, ParameterTable
from elslightning.system.errors import InputError

SIDE = "side"
"""The column of a table whose squares may be even."""


class SquareCrops(Crops):
    """All squares of one side that lie inside an image, from the upper left to the lower right.

    Args:
        side: of the squares, at least 1 and at most that of the image.
        like: (..., height, width), an image whose dtype and device the sums have.
    """

    def __init__(self, side: int, like: Tensor) -> None:
        self.rows, self.columns = (_banded(length, side, like) for length in like.shape[-2:])
        self.count = len(self.rows) * len(self.columns)

    def gather(self, maps: Tensor) -> Tensor:
        return (self.rows @ maps @ self.columns.T).flatten(-2)

    def spread(self, values: Tensor) -> Tensor:
        return self.rows.T @ values.unflatten(-1, (len(self.rows), len(self.columns))) @ self.columns


def _banded(length: int, side: int, like: Tensor) -> Tensor:
    """(position, length) ones where a window of `side` that begins at a position covers an axis."""
    first, index = torch.arange(length - side + 1)[:, None], torch.arange(length)
    return ((index >= first) & (index < first + side)).to(like)


class SquareCropScoreMachine(CropMachine):
    """PSPC with square crops (Niedoba et al., arXiv 2411.19339): every s×s square inside the image has a posterior.

    The formula is that of `CropMachine`. Unlike LS, a square writes all of its pixels, not its centre alone, and none
    reaches beyond the border. With squares as large as a square image it is the ideal score machine, with single pixels
    LS at P = 1. Squares of any size cost the same: two passes, in each of which a training image is multiplied with two
    banded matrices per noisy image.

    Args:
        images, labels, memory_budget: as in `ScoreMachine`. It takes no shard of a bank.
        scales: the side s of the squares, from 1 to the shorter side of the image, even or odd: a number, or a table
            over noise levels with a column `side`, or with one of patch sizes, which are odd.

    Raises:
        InputError: also for a side that is not positive, or longer than the image's.
    """

    free: ClassVar[tuple[str, ...]] = (PATCH_SIZE,)

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
        memory_budget: int | None = None,
    ) -> None:
        super().__init__(images, labels, memory_budget=memory_budget)
        self.scales = scales
        for side in Parameter(self._column, scales).values:
            self.check_patch_size(int(side))

    @property
    def _column(self) -> str:
        """What the sides are called."""
        has_sizes = isinstance(self.scales, ParameterTable) and SIDE not in self.scales.columns
        return PATCH_SIZE if has_sizes else SIDE

    def check_patch_size(self, side: int) -> None:
        """Raises InputError unless the machine can use squares of this side on its images."""
        shorter = min(self.images.shape[2:])
        if not 1 <= side <= shorter:
            height, width = self.images.shape[2:]
            raise InputError(
                f"squares inside images of {height} x {width} pixels have a side from 1 to {shorter}, not {side}"
            )

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return Parameter(self._column, self.scales).at(alpha_bar).long()

    @torch.no_grad()
    def sweep(
        self, x_t: Images, alpha_bar: AlphaBar, patch_sizes: Sequence[int], labels: Labels | None = None
    ) -> Tensor:
        """As in `PatchMachine.sweep`; squares of any side from 1 to that of the image."""
        self.check_inputs(x_t, alpha_bar, labels)
        if not patch_sizes:
            raise InputError("a sweep needs at least one side")
        for side in patch_sizes:
            self.check_patch_size(side)
        return self._evaluate(x_t, alpha_bar, labels, torch.tensor(patch_sizes).expand(len(x_t), -1))

    def _crops(self, setting: int) -> SquareCrops:
        self.check_patch_size(setting)
        like = self.images.new_empty(self.images.shape[2:], dtype=sum_dtype(self.images.device))
        return SquareCrops(setting, like)

    def _most_crops(self, setting: int) -> int:
        height, width = self.images.shape[2:]
        return (height - setting + 1) * (width - setting + 1)
