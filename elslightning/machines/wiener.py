"""wiener: the best linear denoiser."""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import Partial
from elslightning.machines.moments import MomentMachine, sure
from elslightning.system.checks import raise_for, whole
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part


class WienerScoreMachine(MomentMachine):
    """The posterior mean of a Gaussian with the mean and the covariance of the training images, or of the class's.

    `x0_hat = μ + U diag(a λ / (a² λ + s²)) Uᵀ (x_t - a μ)`, where a = sqrt(alpha_bar), s² = 1 - alpha_bar, and the
    covariance is U diag(λ) Uᵀ: of all linear denoisers the one with the least squared error on the training images
    (arXiv 2412.09726, 2410.24060). It is exact where the images are Gaussian, and sees no more of them than their
    covariance. A direction along which they do not vary keeps the mean, and so does everything as alpha_bar → 0.

    A call takes two products with U, of `dim · rank` numbers, after one decomposition per class: see `MomentMachine`,
    which also says what is different for images of more than 4,096 numbers.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        rank: how many principal components to use, at least 1; None for all.
        ridge: added to the variance in every direction, at least 0, in units of the pixels' own variance: images so
            few that they vary along a few directions only say little of the others.

    Raises:
        InputError: also for a rank below 1 or above the numbers in an image, or a ridge that is negative or infinite.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        rank: int | None = None,
        ridge: float = 0.0,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        raise_for(*([] if rank is None else whole("rank", rank, 1)))
        dim = images.shape[1:].numel()
        if rank is not None and rank > dim:
            raise InputError(f"rank must be at most {dim}, the numbers in an image, not {rank}")
        if not 0 <= ridge < float("inf"):
            raise InputError(f"ridge must be at least 0 and finite, not {ridge}")
        self.components = rank
        self.ridge = ridge

    def _options(self) -> Sequence[Part]:
        return [f"rank {self.components}, ridge {self.ridge}"]

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 12 * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        number, mean, basis, variance = self._moments[chunks.label]
        signal = alpha_bar.sqrt()[:, None].to(mean)
        noise = (1 - alpha_bar)[:, None].to(mean)

        def gain(power: Tensor) -> Tensor:
            return signal * power / (signal.square() * power + noise)

        elsewhere = gain(mean.new_tensor(self.ridge))  # (batch, 1), in the directions beside the basis
        offset = x_t.flatten(1).to(mean) - signal * mean
        found = mean + elsewhere * offset + (offset @ basis * (gain(variance + self.ridge) - elsewhere)) @ basis.T
        chunks.skip()
        return [sure(found, number, x_t)]
