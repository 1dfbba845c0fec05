"""pca: locality that the covariance of the images gives every pixel."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import Partial, block_partial, empty_partial, merge, posterior_mean, working_dtype
from elslightning.machines.moments import MomentMachine, Moments
from elslightning.machines.parameters import Given, Parameter
from elslightning.system.checks import raise_for, whole
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part


class PCALocalityScoreMachine(MomentMachine):
    """The ideal score machine of every pixel by itself, which sees what a linear filter looks at for it.

    The Wiener filter of the images, `W = U diag(a² λ / (a² λ + s²)) Uᵀ` with a² = alpha_bar and s² = 1 - alpha_bar,
    says of every coordinate (a channel of a pixel) m which others n matter: those with `|W_mn|` of at least `threshold`
    times the greatest in its row, and m itself. Then

        x0_hat_m = Σ_i softmax_i(-Σ_n (x_t,n - a x_i,n)² / (2 s²)) x_i,m,   over the n that matter for m,

    (Lukoianov et al., arXiv 2509.09672). A threshold of 0 is the ideal machine; a coordinate that sees itself alone
    takes the value that is nearest to it. The windows follow the images: they shrink as the noise does, differ between
    pixels, and have holes; of the network they know nothing.

    A noisy image costs `dim²` products per training image, as much as `dim` noisy images for the ideal machine; and
    every noise level one decomposition per class (see `MomentMachine`) and a product of `dim · dim · rank`.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        threshold: from 0 to 1: a number, or a table over noise levels with such a column.
        batch: given, the result is the mean of the estimates from batches of that many training images, in their order
            and the last one perhaps smaller, as in the published code: another estimator, which depends on the order.

    Raises:
        InputError: also for a threshold outside its range, a batch below 1, or a batch with a process group.
    """

    free: ClassVar[tuple[str, ...]] = ("threshold",)

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        threshold: Given,
        batch: int | None = None,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        raise_for(*([] if batch is None else whole("batch", batch, 1)))
        if batch is not None and process_group is not None:
            raise InputError(f"batch={batch} follows the order of one bank, which no process has: leave batch out")
        Parameter("threshold", threshold)  # its range
        self.threshold = threshold
        self.batch = batch

    def _options(self) -> Sequence[Part]:
        return [Parameter("threshold", self.threshold).said(), f"batch {self.batch}"]

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 12 * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        """The averages (batch, dim) of single numbers."""
        keys = torch.stack([alpha_bar, Parameter("threshold", self.threshold).at(alpha_bar)], dim=1)
        levels, which = keys.unique(dim=0, return_inverse=True)
        found = empty_partial((len(x_t), x_t[0].numel()), 1, x_t.device)
        for k, (level, threshold) in enumerate(levels.tolist()):
            rows = (which == k).to(x_t.device)
            mask = visible(self._moments[chunks.label], level, threshold)
            part = self._average(x_t[rows], level, mask, chunks.turn(k, len(levels)))
            for whole_tensor, tensor in zip(found, part, strict=True):
                whole_tensor[rows] = tensor
        return [found]

    def _average(self, x_t: Images, alpha_bar: float, mask: Tensor, chunks: Chunks) -> Partial:
        """The averages for images of one noise level."""
        dim = x_t[0].numel()
        dtype = working_dtype(x_t, alpha_bar, dim)
        query, mask = x_t.flatten(1).to(dtype), mask.to(dtype)
        signal, power = alpha_bar**0.5 / (1 - alpha_bar), alpha_bar / (2 * (1 - alpha_bar))
        nothing = empty_partial((len(x_t), dim), 1, x_t.device)
        found, estimates, batches, seen = nothing, torch.zeros_like(nothing.weighted), 0, 0
        for images in self._pieces(chunks, dtype, dim):
            key = images.flatten(1)  # (image, dim)
            value = key.T.to(x_t.dtype)[:, :, None]
            parts = []
            for one in query:
                # The term ‖x_t‖² cancels in the softmax.
                log_weight = mask @ (key * (signal * one - power * key)).T  # (dim, image)
                parts.append(Partial(*(part[:, 0] for part in block_partial(log_weight[:, None], value))))
            found = merge(found, Partial(*(torch.stack(tensors) for tensors in zip(*parts, strict=True))))
            seen += len(key)
            if self.batch is not None and (seen % self.batch == 0 or seen == len(chunks.members)):
                estimates = estimates + posterior_mean(found)
                found, batches = nothing, batches + 1
        if self.batch is None:
            return found
        return Partial(torch.zeros_like(nothing.weight), torch.full_like(nothing.weight, batches), estimates)

    def _pieces(self, chunks: Chunks, dtype: torch.dtype, dim: int) -> Iterator[Tensor]:
        """The training images, no more at a time than are left of a batch."""
        seen = 0
        # Of every training image: its numbers, twice, and for every coordinate a log-weight in a few forms.
        for images in chunks.of(dtype, 8 * 10 * dim, 3 * 8 * dim**2):
            if self.batch is None:
                yield images
                continue
            for part in images.tensor_split([*range(-seen % self.batch, len(images), self.batch)]):
                if len(part):
                    yield part
            seen += len(images)

    def _image_mean(self, partial: Partial, x_t: Images, setting: Any = None) -> Tensor:
        return posterior_mean(partial).reshape(-1, *x_t.shape[1:])


def visible(moments: Moments, alpha_bar: float, threshold: float) -> Tensor:
    """Which coordinates n matter for each coordinate m: (m, n) truth values."""
    gain = alpha_bar * moments.variance / (alpha_bar * moments.variance + 1 - alpha_bar)
    size = ((moments.basis * gain) @ moments.basis.T).abs()
    least = threshold * (1 - 1e-9) * size.amax(dim=1, keepdim=True)  # what is equal but for rounding counts
    return (size >= least) | torch.eye(len(size), dtype=torch.bool, device=size.device)
