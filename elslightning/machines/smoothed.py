"""scfdm: the smoothed closed-form diffusion model."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.ideal import attend_images
from elslightning.machines.kernels import LogWeight, Partial, posterior_mean, working_dtype
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.parameters import Given, Parameter
from elslightning.system.checks import raise_for, whole
from elslightning.system.keeping import Part


class SmoothedScoreMachine(ScoreMachine):
    """The ideal score machine, smoothed: its mean over noisy images that lie around the given one.

    `x0_hat = mean over m of IS(x_t + smoothing · sqrt(1 - alpha_bar) · u_m)`, u_m standard normal (Scarvelis et al.,
    arXiv 2310.12395). Without smoothing it is the ideal machine; with some, it blends images that are nearly equally
    near, and so creates barycentres of training images. The draws are the same for every image and at every noise
    level: the machine is a function of the noisy image, and does not depend on what else it is given.

    It costs `draws` times what the ideal machine costs.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        smoothing: the standard deviation around the noisy image, in units of the noise's own, from 0 to 1e6: a number,
            or a table over noise levels with such a column.
        draws: how many, at least 1.
        seed: of the draws.

    Raises:
        InputError: also for smoothing outside its range, draws below 1, or a seed that is not a whole number.
    """

    free: ClassVar[tuple[str, ...]] = ("smoothing",)

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        smoothing: Given,
        draws: int = 16,
        seed: int = 0,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        raise_for(*whole("draws", draws, 1), *whole("seed", seed, 0))
        Parameter("smoothing", smoothing)  # its range
        self.smoothing = smoothing
        self.draws = draws
        self.seed = seed

    def _options(self) -> Sequence[Part]:
        return [Parameter("smoothing", self.smoothing).said(), f"draws {self.draws}, seed {self.seed}"]

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 10 * self.draws * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        batch, dim = len(x_t), x_t[0].numel()
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same on every device
        drawn = torch.randn(self.draws, dim, generator=generator, dtype=torch.float64)
        width = Parameter("smoothing", self.smoothing).at(alpha_bar) * (1 - alpha_bar).sqrt()
        dtype = working_dtype(x_t, float(alpha_bar.max()), dim)
        around = (width[:, None, None] * drawn).to(x_t.device, dtype)
        query = (x_t.to(dtype).flatten(1)[:, None] + around).flatten(0, 1)  # (batch · draw, dim)
        found = attend_images(query, LogWeight.of(alpha_bar, self.draws, query), chunks, x_t.dtype)
        return [Partial(*(part.reshape(batch, self.draws, *part.shape[2:]) for part in found))]

    def _image_mean(self, partial: Partial, x_t: Images, setting: Any = None) -> Tensor:
        return posterior_mean(partial).mean(dim=1).reshape(-1, *x_t.shape[1:])
