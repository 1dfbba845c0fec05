"""PooledPatchMachine: patch machines whose pixels share candidates, all of them looked at, or as many as it takes."""

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.estimating import (
    AUTO,
    AUTO_ACCURACY,
    AUTO_FROM,
    EXACT,
    Estimate,
    Estimator,
    check_accuracy,
    estimate,
)
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.patches import PatchMachine
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part


class PooledPatchMachine(PatchMachine):
    """A patch machine that pools locations, exact or with an error bar.

    Args:
        images, labels, scales, memory_budget, process_group, own_images: as in `PatchMachine`.
        accuracy: "exact"; or the standard error of x0 that is enough, in (0, 1], as the root mean square over the
            pixels of an image that share candidates: then candidates are drawn, see
            `elslightning.machines.approximate`, and `estimate` says how well each pixel is known; or "auto", which is
            0.05 for banks so large that this is quicker on a CPU, and exact otherwise. Draws are made on the CPU.
        seed: of the draws; the same seed, images and noise level make the same draws.

    Raises:
        InputError: as in `PatchMachine`, and for an accuracy that is none, or one with a shard of a bank.
    """

    pooled: ClassVar[bool] = True

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
        accuracy: float | str = EXACT,
        seed: int = 0,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        check_accuracy(accuracy)
        if accuracy != EXACT and process_group is not None:
            raise InputError(
                f"{type(self).__name__} draws from a whole bank: accuracy={accuracy} does not go with a shard of one"
            )
        super().__init__(
            images,
            labels,
            scales=scales,
            memory_budget=memory_budget,
            process_group=process_group,
            own_images=own_images,
        )
        self.accuracy = accuracy
        self.seed = seed
        self._estimators: list[Estimator] = []

    @property
    def replica(self) -> "PooledPatchMachine | None":
        """The same machine with other draws, on the same index; None where it is exact."""
        if self._standard_error() is None:
            return None
        self._estimator()
        other = copy.copy(self)
        other.seed = self.seed + 1
        return other

    @property
    def doubtful(self) -> float | None:
        if not self._estimators or not self._estimators[0].evaluated:
            return None
        return self._estimators[0].doubted / self._estimators[0].evaluated

    @torch.no_grad()
    def estimate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Estimate:
        """The posterior mean, and how well it is known; arguments and errors as in `forward`."""
        self.check_inputs(x_t, alpha_bar, labels)
        return self._estimate(x_t, alpha_bar, labels, self.patch_size_at(alpha_bar))

    def _standard_error(self) -> float | None:
        """The standard error that is enough; None where all candidates are looked at."""
        if self.accuracy == AUTO and self.images.device.type != "cpu":
            return None
        if self.accuracy == AUTO:
            candidates = self.images.shape[0] * self.images.shape[2] * self.images.shape[3]
            if self.labels is not None and len(self.labels):
                candidates = candidates * int(self.labels.bincount().max()) // len(self.labels)
            return AUTO_ACCURACY if candidates >= AUTO_FROM else None
        return None if isinstance(self.accuracy, str) else self.accuracy

    def _estimator(self) -> Estimator:
        """The indices of the bank, which copies of the machine share."""
        if not self._estimators:
            self._estimators.append(Estimator(self))
        return self._estimators[0]

    def _options(self) -> Sequence[Part]:
        asked = self._standard_error()
        return () if asked is None else (f"accuracy {asked} seed {self.seed}",)

    def _evaluate_same(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Tensor:
        if self._standard_error() is None:
            return super()._evaluate_same(x_t, alpha_bar, labels, patch_sizes)
        return torch.stack([self._estimate(x_t, alpha_bar, labels, sizes).x0 for sizes in patch_sizes.T])

    def _estimate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Estimate:
        """Images of the same label and patch size together: they share their candidates."""
        asked = self._standard_error()
        pixels = x_t.new_zeros((len(x_t), *x_t.shape[2:]), dtype=torch.bool)
        result = Estimate(torch.empty_like(x_t), torch.zeros_like(x_t), pixels)
        if asked is None:
            return result._replace(x0=self._evaluate(x_t, alpha_bar, labels, patch_sizes[:, None])[0])
        estimator = self._estimator()
        classes = torch.zeros(len(x_t), dtype=torch.int64) if labels is None else labels.cpu()
        keys = torch.stack([classes, patch_sizes.cpu()], dim=1)
        done = 0
        for key in keys.unique(dim=0):
            rows = (keys == key).all(dim=1).nonzero()[:, 0]
            label, size = (None if labels is None else int(key[0])), int(key[1])
            self.bank(label)  # refuses a label without training images

            def tick(fraction: float, start: int = done, count: int = len(rows)) -> None:
                self.on_progress((start + fraction * count) / len(x_t))

            where = rows.to(x_t.device)
            found = estimate(self, estimator, x_t[where], alpha_bar.cpu()[rows], label, size, asked, self.seed, tick)
            for into, part in zip(result, found, strict=True):
                into[where] = part
            done += len(rows)
        estimator.evaluated += result.doubtful.numel()
        estimator.doubted += int(result.doubtful.sum())
        return result
