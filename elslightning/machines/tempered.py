"""is_tempered: the ideal score machine at another temperature."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks, whole_image_partial
from elslightning.machines.ideal import attend_images
from elslightning.machines.kernels import LogWeight, Partial, working_dtype
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.parameters import Given, Parameter
from elslightning.system.keeping import Part


class TemperedScoreMachine(ScoreMachine):
    """The ideal score machine whose posterior is flatter or sharper than it is.

    Every pixel is the same average over whole training images, weighted by
    `softmax(-‖x_t - sqrt(alpha_bar) image‖² / (2 (1 - alpha_bar) temperature))`. A temperature of 1 is the ideal
    machine; a high one blends images into the mean, a low one picks the nearest. It tells whether a network differs
    from the ideal machine by nothing but doubt. It costs what the ideal machine costs.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        temperature: from 1e-6 to 1e6: a number, or a table over noise levels with such a column.

    Raises:
        InputError: also for a temperature outside its range.
    """

    free: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        temperature: Given,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        Parameter("temperature", temperature)  # its range
        self.temperature = temperature

    def _options(self) -> Sequence[Part]:
        return [Parameter("temperature", self.temperature).said()]

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 8 * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        temperature = Parameter("temperature", self.temperature).at(alpha_bar)
        dim = math.ceil(x_t[0].numel() / min(1.0, float(temperature.min())))  # what sharpens also magnifies errors
        query = x_t.to(working_dtype(x_t, float(alpha_bar.max()), dim)).flatten(1)
        signal, power = LogWeight.of(alpha_bar, 1, query)
        temperature = temperature.to(query)
        found = attend_images(query, LogWeight(signal / temperature, power / temperature), chunks, x_t.dtype)
        return [whole_image_partial(found, x_t)]
