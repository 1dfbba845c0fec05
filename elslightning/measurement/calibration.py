"""Calibration of the locality scale: the patch size with which a machine agrees best with a network, per step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.sampling import Step, reverse_process
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import AlphaBar, Images, Labels, Progress, no_progress
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes, all_or_none


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


def _median(agreement: Tensor, sizes: Tensor) -> Tensor:
    return sizes[agreement.argmax(dim=0)].median()


def _mode(agreement: Tensor, sizes: Tensor) -> Tensor:
    values, counts = sizes[agreement.argmax(dim=0)].unique(return_counts=True)  # in increasing order
    return values[counts.argmax()]


def _mean(agreement: Tensor, sizes: Tensor) -> Tensor:
    return sizes[agreement.double().mean(dim=1).argmax()]


STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"median": _median, "mode": _mode, "mean": _mean}
"""The size of a step, from the agreement (size, sample) and the sizes (size,) in increasing order.

`median` and `mode` look at the best size of every sample: the lower median, and the most frequent one. `mean` takes
the size of the best agreement averaged over samples. Ties go to the smaller size.
"""


@dataclass(frozen=True)
class Calibration:
    """Calibrated scales and their evidence.

    Attributes:
        scales: the patch size per noise level.
        alpha_bar: (steps,) noise levels, from t = 1 down to t = 1 / steps.
        patch_sizes: the sizes tried.
        agreement: (steps, patch size, sample), greater is better.
        objective: what agreement is.
    """

    scales: ParameterTable
    alpha_bar: Float64[Tensor, " steps"]
    patch_sizes: tuple[int, ...]
    agreement: Float[Tensor, "steps sizes samples"]
    objective: str = "cosine"


class State(NamedTuple):
    """One noise level of a calibration: what the machine sees, and how well it does."""

    x_t: Images
    alpha_bar: AlphaBar
    agreement: Callable[[Images], Tensor]
    """Of the machine's posterior means, (samples, channel, height, width), as (samples,); greater is better."""


def tune(
    machine: Sweepable,
    states: Iterator[State],
    objective: str,
    *,
    steps: int,
    patch_sizes: Sequence[int],
    labels: Labels | None,
    statistic: str,
    cap: int | None,
    what: str,
    progress: Progress,
    samples: int,
    processes: Processes,
) -> Calibration:
    """The patch size with which `machine` agrees best, at every one of `steps` states of one noise level each.

    Args:
        states, labels: of this process's share of all `samples`.

    Other arguments as in `calibrate`.

    Raises:
        InputError: for an unknown statistic, and patch sizes that are missing, not increasing, or all above `cap`.
    """
    if statistic not in STATISTICS:
        raise InputError(f"calibration.statistic must be one of {', '.join(STATISTICS)}, not {statistic!r}")
    sizes = capped(patch_sizes, cap)
    agreements: list[Tensor] = []
    alpha_bars: list[Tensor] = []
    with all_or_none(processes.group):
        for state in states:
            with machine.reporting(lambda fraction: progress(what, len(agreements) + fraction, steps)):
                means = machine.sweep(state.x_t, state.alpha_bar, sizes, machine.select_labels(labels))
            agreements.append(torch.stack([state.agreement(x0) for x0 in means]).cpu())  # (size, sample)
            alpha_bars.append(state.alpha_bar[0].cpu())
            progress(what, len(agreements), steps)
    levels = torch.stack(alpha_bars)
    agreement = processes.join(torch.stack(agreements), samples, dim=2)
    best = [STATISTICS[statistic](of_step, torch.tensor(sizes)) for of_step in agreement]
    return Calibration(ScaleTable(levels, torch.stack(best)), levels, tuple(sizes), agreement, objective)


def capped(patch_sizes: Sequence[int], cap: int | None) -> list[int]:
    """The patch sizes that are not above `cap`; all of them if it is None.

    Raises:
        InputError: for sizes that are missing, not increasing, or all above the cap.

    >>> capped([3, 5, 7], 6)
    [3, 5]
    """
    sizes = list(patch_sizes)
    if not sizes or sizes != sorted(set(sizes)):
        raise InputError(f"calibration.patch_sizes must be increasing, not {sizes}")
    kept = [size for size in sizes if cap is None or size <= cap]
    if not kept:
        raise InputError(f"calibration.max_patch_size={cap} leaves none of calibration.patch_sizes={sizes}")
    return kept


@doorway(denoiser="network", schedule="schedule", images="noise")
def calibrate(
    network: Denoiser,
    machine: Sweepable,
    schedule: Schedule,
    *,
    steps: int,
    patch_sizes: Sequence[int],
    noise: Images,
    labels: Labels | None = None,
    objective: str = "cosine",
    statistic: str = "median",
    cap: int | None = None,
    what: str = "calibrating",
    progress: Progress = no_progress,
    processes: Processes = ALONE,
) -> Calibration:
    """The patch size per noise level with which `machine` agrees best with `network` (App. C.2, Fig. 4b).

    Along the network's own reverse process, at each state, the network's eps is compared with the machine's
    for every patch size. The paper takes the best size per sample, and of these the median over samples.

    Args:
        network: the denoiser to explain.
        machine: a local machine; its own scales are not used.
        schedule: gives the noise levels.
        steps: steps of the reverse process; one scale each.
        patch_sizes: odd sizes to try, in increasing order.
        noise: (samples, channel, height, width), where the process starts.
        labels: (samples,) int64, handed to whoever is conditional.
        objective: "cosine" or "mse", between the two eps.
        statistic: "median" (the lower one of an even number), "mode" or "mean", see `STATISTICS`.
        cap: the greatest patch size to try; None sets no limit.
        what: what `progress` is told is being done.
        progress: told of every step.
        processes: each takes a share of the samples, and all get the same result.

    Raises:
        InputError: for an unknown objective or statistic, patch sizes that are missing, not increasing, all above
            the cap, or not for this machine, and whatever network or machine do not take.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"calibration.objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    mine, labels = processes.share(noise), None if labels is None else processes.share(labels)
    return tune(
        machine,
        (_state(step, len(mine), objective) for step in reverse_process(network, mine, schedule, steps, labels)),
        objective,
        steps=steps,
        patch_sizes=patch_sizes,
        labels=labels,
        statistic=statistic,
        cap=cap,
        what=what,
        progress=progress,
        samples=len(noise),
        processes=processes,
    )


def _state(step: Step, samples: int, objective: str) -> State:
    """A step of the network, judged by the eps that it made of it."""
    alpha_bar = step.alpha_bar.expand(samples)
    truth = eps_from_x0(step.x_t, step.x0, alpha_bar).flatten(1)

    def agreement(x0: Images) -> Tensor:
        return OBJECTIVES[objective](eps_from_x0(step.x_t, x0, alpha_bar).flatten(1), truth)

    return State(step.x_t, alpha_bar, agreement)
