"""MomentMachine: what the machines share that know their images by a mean and a covariance."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import Partial, full_precision, sum_dtype
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.memory import default_budget, fitting
from elslightning.system.processes import all_or_none

FEW = 2
"""Images are few if there are so many times more numbers in one of them: then they are decomposed themselves, which is
quicker than their covariance, and the same."""


class Moments(NamedTuple):
    """The mean of some images, and their principal components; in float64 where the device has it."""

    number: int
    """How many images there are."""
    mean: Tensor
    """(dim,), the images flattened."""
    basis: Tensor
    """(dim, rank), orthonormal columns."""
    variance: Tensor
    """(rank,) along each of them, descending, positive: the eigenvalues of the covariance `Σ (x - mean)(x - mean)ᵀ /
    number`."""


class MomentMachine(ScoreMachine):
    """A machine that knows mean and covariance of its images, those of each class where it is conditional.

    They are found when a class is first asked for and kept: `dim² · 8` bytes at most for each. Over a process group,
    they are sums over all shards. Up to `dense` numbers in an image, the covariance is formed in one more pass over the
    images and decomposed exactly, but for directions without variance; beyond that, its `leading` components (or as
    many as are asked for) are found by randomised subspace iteration (Halko, Martinsson & Tropp, arXiv 0909.4061) in
    `passes` passes, and nothing is known of the others.
    """

    dense: ClassVar[int] = 4096
    leading: ClassVar[int] = 512
    passes: ClassVar[int] = 4
    components: int | None
    """How many principal components are wanted: None for all that vary, 0 where the mean will do."""

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        self.components = None
        self._moments: dict[int | None, Moments] = {}

    def _apply(self, *arguments: Any, **options: Any) -> "MomentMachine":
        self._moments.clear()  # they are of images elsewhere, or of other digits
        return super()._apply(*arguments, **options)

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _evaluate_same(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Tensor:
        wanted = [None] if labels is None else labels.unique().tolist()
        missing = [label for label in wanted if label not in self._moments]
        tell, learning = self.on_progress, 0.9 if missing else 0.0
        with full_precision(x_t.device):
            for k, label in enumerate(missing):

                def tick(fraction: float, k: int = k) -> None:
                    tell(learning * (k + fraction) / len(missing))

                self._moments[label] = self._learn(label, tick)
        with self.reporting(lambda fraction: tell(learning + (1 - learning) * fraction)):
            return super()._evaluate_same(x_t, alpha_bar, labels, patch_sizes)

    def _learn(self, label: int | None, tick: Callable[[float], None]) -> Moments:
        """The moments of a class, in all shards together."""
        dim, device = self.images.shape[1:].numel(), self.images.device
        dense = dim <= self.dense
        rank = self.leading if self.components is None and not dense else self.components
        width = dim if dense else min(dim, (rank or 0) + 10)  # a few more, for the last ones converge slowly
        # The matrix, what is added to it, and as much again to decompose it.
        matrix = 4 * 8 * dim * width if rank != 0 else 0
        with all_or_none(self.process_group):
            budget = self.memory_budget or default_budget(device)
            if matrix:
                fitting(budget, matrix, 1, "one covariance")
            chunks = self.bank(label, budget - matrix).telling(tick)
        turns = 1 if rank == 0 else 2 if dense else 1 + self.passes
        sums = self._total(chunks.turn(0, turns), (dim + 1,), lambda x: torch.cat([x.sum(dim=0), _count(x)]))
        count = int(sums[-1])
        mean = sums[:-1] / max(count, 1)
        basis, variance = mean.new_empty((dim, 0)), mean.new_empty(0)
        if rank != 0 and count:
            if dense and self.process_group is None and FEW * count <= dim:
                basis, variance = _of_few(torch.cat([x - mean for x in self._flat(chunks.turn(1, turns))]))
            elif dense:
                square = self._total(chunks.turn(1, turns), (dim, dim), lambda x: (x - mean).T @ (x - mean)) / count
                basis, variance = _principal(square)
            else:
                seed = torch.Generator().manual_seed(0)
                basis = torch.randn(dim, width, generator=seed, dtype=torch.float64).to(mean)
                for turn in range(1, turns):
                    basis = torch.linalg.qr(basis).Q

                    def term(x: Tensor, basis: Tensor = basis) -> Tensor:
                        return (x - mean).T @ ((x - mean) @ basis)

                    found = self._total(chunks.turn(turn, turns), (dim, width), term) / count
                    inner = basis.T @ found
                    basis, last = found, basis
                rotation, variance = _principal((inner + inner.T) / 2)
                basis = last @ rotation
        return Moments(count, mean, basis[:, :rank].contiguous(), variance[:rank])

    def _total(self, chunks: Chunks, shape: tuple[int, ...], term: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of what is made of images (n, dim), over all images of all shards."""
        dtype = sum_dtype(self.images.device)
        with all_or_none(self.process_group):
            total = torch.zeros(shape, dtype=dtype, device=self.images.device)
            for x in self._flat(chunks):
                total += term(x)
        if self.process_group is not None:
            dist.all_reduce(total, group=self.process_group)
        return total

    def _flat(self, chunks: Chunks) -> Iterator[Tensor]:
        """The images, (n, dim), in the type that sums have."""
        for images in chunks.of(sum_dtype(self.images.device), 3 * 8 * self.images.shape[1:].numel()):
            yield images.flatten(1)


def _count(x: Tensor) -> Tensor:
    return x.new_full((1,), len(x))


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvectors (dim, rank) of a covariance and their eigenvalues, descending; those that are zero but for
    rounding are left out."""
    where = covariance.device
    variance, basis = torch.linalg.eigh(covariance.cpu() if where.type == "mps" else covariance)
    return _without_zeros(basis.flip(1).to(where), variance.flip(0).to(where))


def _of_few(centred: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the covariance of these images, (number, dim), without their mean."""
    where = centred.device
    _, spread, basis = torch.linalg.svd(centred.cpu() if where.type == "mps" else centred, full_matrices=False)
    return _without_zeros(basis.T.to(where), spread.square().to(where) / len(centred))


def _without_zeros(basis: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Those of some principal components, the greatest variance first, that are not zero but for rounding."""
    least = len(basis) * torch.finfo(variance.dtype).eps * variance.clamp(min=0).max()
    kept = int((variance > least).sum())
    return basis[:, :kept], variance[:kept]


def sure(mean: Tensor, count: int, like: Images) -> Partial:
    """The average of one candidate per image, (batch, dim), that a posterior is sure of; of none where `count` is 0."""
    batch, channels, height, width = like.shape
    certain = mean.new_full((batch, height, width), float(count > 0))
    values = mean.reshape(batch, channels, height, width).permute(0, 2, 3, 1)
    return Partial(torch.zeros_like(certain), certain, certain[..., None] * values)
