"""Calibration of the locality scale: the patch size with which a machine agrees best with a network, per step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.denoiser import Denoiser, eps_from_x0
from elslightning.errors import InputError
from elslightning.sampling import reverse_process
from elslightning.scales import ScaleTable
from elslightning.schedule import CosineSchedule
from elslightning.shapes import AlphaBar, Images, Labels, Progress, no_progress


@runtime_checkable
class Sweepable(Protocol):
    """What calibration needs of a machine: its posterior means for many patch sizes at once."""

    def sweep(
        self, x_t: Images, alpha_bar: AlphaBar, patch_sizes: Sequence[int], labels: Labels | None = None
    ) -> Tensor: ...

    def select_labels(self, labels: Labels | None) -> Labels | None: ...

    def reporting(self, on_progress: Callable[[float], None]) -> AbstractContextManager[None]: ...


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a, b, dim=1)


def _negative_mse(a: Tensor, b: Tensor) -> Tensor:
    return -(a - b).square().mean(dim=1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": _cosine, "mse": _negative_mse}
"""Agreement of two batches of flattened eps, (batch, pixels) each, as (batch,); greater is better."""


@dataclass(frozen=True)
class Calibration:
    """Calibrated scales and their evidence.

    Attributes:
        scales: the patch size per noise level.
        alpha_bar: (steps,) noise levels, from t = 1 down to t = 1 / steps.
        patch_sizes: the sizes tried.
        agreement: (steps, patch size, sample), greater is better.
    """

    scales: ScaleTable
    alpha_bar: Float64[Tensor, " steps"]
    patch_sizes: tuple[int, ...]
    agreement: Float[Tensor, "steps sizes samples"]

    def rows(self, machine: str) -> Iterator[dict[str, Any]]:
        """The evidence as rows of `calibration.csv`; `step` counts down from the number of steps to 1."""
        for index, alpha_bar in enumerate(self.alpha_bar.tolist()):
            for size, values in zip(self.patch_sizes, self.agreement[index].tolist(), strict=True):
                for sample, value in enumerate(values):
                    yield {
                        "machine": machine,
                        "step": len(self.alpha_bar) - index,
                        "alpha_bar": alpha_bar,
                        "patch_size": size,
                        "sample": sample,
                        "agreement": value,
                    }


def calibrate(
    network: Denoiser,
    machine: Sweepable,
    schedule: CosineSchedule,
    *,
    steps: int,
    patch_sizes: Sequence[int],
    noise: Images,
    labels: Labels | None = None,
    objective: str = "cosine",
    what: str = "calibrating",
    progress: Progress = no_progress,
) -> Calibration:
    """The patch size per noise level with which `machine` agrees best with `network` (App. C.2, Fig. 4b).

    Along the network's own reverse process, at each state, the network's eps is compared with the machine's
    for every patch size. The best size is taken per sample; the scale of the step is the median over samples
    (the lower one of an even number).

    Args:
        network: the denoiser to explain.
        machine: a local machine; its own scales are not used.
        schedule: gives the noise levels.
        steps: steps of the reverse process; one scale each.
        patch_sizes: odd sizes to try, in increasing order.
        noise: (samples, channel, height, width), where the process starts.
        labels: (samples,) int64, handed to whoever is conditional.
        objective: "cosine" or "mse", between the two eps.
        what: what `progress` is told is being done.
        progress: told of every step.

    Raises:
        InputError: for an unknown objective, patch sizes that are missing, not increasing, or not for this
            machine, and whatever network or machine do not take.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"calibration.objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    sizes = list(patch_sizes)
    if not sizes or sizes != sorted(set(sizes)):
        raise InputError(f"calibration.patch_sizes must be increasing, not {sizes}")
    agreements: list[Tensor] = []
    alpha_bars: list[Tensor] = []
    best: list[Tensor] = []
    for step in reverse_process(network, noise, schedule, steps, labels):
        alpha_bar = step.alpha_bar.expand(len(noise))
        truth = eps_from_x0(step.x_t, step.x0, alpha_bar).flatten(1)
        with machine.reporting(lambda fraction: progress(what, len(best) + fraction, steps)):
            means = machine.sweep(step.x_t, alpha_bar, sizes, machine.select_labels(labels))
        agreement = torch.stack(
            [OBJECTIVES[objective](eps_from_x0(step.x_t, x0, alpha_bar).flatten(1), truth) for x0 in means]
        ).cpu()  # (size, sample)
        agreements.append(agreement)
        alpha_bars.append(step.alpha_bar)
        best.append(torch.tensor(sizes)[agreement.argmax(dim=0)].median())
        progress(what, len(best), steps)
    levels = torch.stack(alpha_bars)
    return Calibration(ScaleTable(levels, torch.stack(best)), levels, tuple(sizes), torch.stack(agreements))
