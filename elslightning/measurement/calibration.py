"""Calibration of what is free in a machine: the patch size, and all else, with which it agrees best with a network."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.machines.scales import ScaleTable
from elslightning.machines.soft import RESPONSE
from elslightning.measurement.candidates import STATISTICS, Setting, candidates_of, chosen, grid
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


@runtime_checkable
class SettingsSweepable(Protocol):
    """The same of a machine in which more is free than the patch size."""

    def sweep_settings(
        self, x_t: Images, alpha_bar: AlphaBar, settings: Sequence[Mapping[str, float]], labels: Labels | None = None
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
    """What is free in a machine, calibrated, and the evidence.

    Attributes:
        scales: what was calibrated, per noise level.
        alpha_bar: (steps,) noise levels, from t = 1 down to t = 1 / steps.
        settings: those tried, in increasing order; see `sizes_only` where only the patch size is free.
        agreement: (steps, setting, sample), greater is better; not a number where a setting was not tried at a step.
        objective: what agreement is.
    """

    scales: ParameterTable
    alpha_bar: Float64[Tensor, " steps"]
    settings: tuple[Setting, ...]
    agreement: Float[Tensor, "steps settings samples"]
    objective: str = "cosine"

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """The patch sizes tried, in increasing order; none where the patch size is not free."""
        return tuple(sorted({int(setting[PATCH_SIZE]) for setting in self.settings if PATCH_SIZE in setting}))

    @property
    def of_sizes(self) -> Float[Tensor, "steps sizes samples"]:
        """The agreement of every patch size with the best others tried with it, by the median over samples."""
        if len(self.patch_sizes) == len(self.settings):
            return self.agreement
        if not self.patch_sizes:
            return self.agreement[:, :0]
        medians = self.agreement.double().quantile(0.5, dim=2).nan_to_num(-math.inf)  # (step, setting)
        parts = []
        for size in self.patch_sizes:
            places = torch.tensor([i for i, setting in enumerate(self.settings) if setting[PATCH_SIZE] == size])
            best = places[medians[:, places].argmax(dim=1)]
            parts.append(self.agreement[torch.arange(len(best)), best])
        return torch.stack(parts, dim=1)


class State(NamedTuple):
    """One noise level of a calibration: what the machine sees, and how well it does."""

    x_t: Images
    alpha_bar: AlphaBar
    agreement: Callable[[Images], Tensor]
    """Of the machine's posterior means, (samples, channel, height, width), as (samples,); greater is better."""


def tune(
    machine: Any,
    states: Iterator[State],
    objective: str,
    *,
    steps: int,
    candidates: Mapping[str, Sequence[float]],
    labels: Labels | None,
    statistic: str,
    what: str,
    progress: Progress,
    samples: int,
    processes: Processes,
) -> Calibration:
    """The setting with which `machine` agrees best, at every one of `steps` states of one noise level each.

    Tried are all combinations of the candidates, but for responses: first all others with the least response, then,
    with what was best of these, every response.

    Args:
        states, labels: of this process's share of all `samples`.
        candidates: by parameter, in increasing order, see `candidates_of`.

    Other arguments as in `calibrate`.

    Raises:
        InputError: for an unknown statistic.
    """
    if statistic not in STATISTICS:
        raise InputError(f"calibration.statistic must be one of {', '.join(STATISTICS)}, not {statistic!r}")
    responses = list(candidates.get(RESPONSE, ()))
    first = grid(dict(candidates) | ({RESPONSE: responses[:1]} if responses else {}))
    found: list[dict[tuple[float, ...], Tensor]] = []
    taken, alpha_bars = [], []

    def ask(state: State, settings: Sequence[Setting], done: float, share: float) -> Tensor:
        with machine.reporting(lambda fraction: progress(what, len(found) + done + share * fraction, steps)):
            means = sweep(machine, state.x_t, state.alpha_bar, settings, machine.select_labels(labels))
        return torch.stack([state.agreement(x0) for x0 in means]).cpu()  # (setting, sample)

    for _ in range(max(steps, 1)):  # whoever makes the states refuses none
        with all_or_none(processes.group):
            state = next(states)
            part = ask(state, first, 0.0, 0.5 if responses[1:] else 1.0)
        tried, agreement = list(first), processes.join(part, samples, dim=1)
        if responses[1:]:
            best = tried[chosen(agreement, tried, statistic)]
            second: list[Setting] = [{**best, RESPONSE: response} for response in responses[1:]]
            with all_or_none(processes.group):
                part = ask(state, second, 0.5, 0.5)
            tried, agreement = tried + second, torch.cat([agreement, processes.join(part, samples, dim=1)])
        taken.append(tried[chosen(agreement, tried, statistic)])
        found.append({tuple(setting.values()): one for setting, one in zip(tried, agreement, strict=True)})
        alpha_bars.append(state.alpha_bar[0].cpu())
        progress(what, len(found), steps)
    levels, settings = torch.stack(alpha_bars), sorted({values for step in found for values in step})
    unknown = torch.full_like(next(iter(found[0].values())), math.nan)
    evidence = torch.stack([torch.stack([step.get(values, unknown) for values in settings]) for step in found])
    kinds = {PATCH_SIZE: torch.int64}
    columns = {
        name: torch.tensor([setting[name] for setting in taken], dtype=kinds.get(name, torch.float64))
        for name in candidates
    }
    names = tuple(dict(zip(candidates, values, strict=True)) for values in settings)
    return Calibration(table_of(levels, columns), levels, names, evidence, objective)


def sweep(machine: Any, x_t: Images, alpha_bar: AlphaBar, settings: Sequence[Setting], labels: Labels | None) -> Tensor:
    """The posterior means of a machine for several settings, (setting, batch, channel, height, width)."""
    if set(settings[0]) == {PATCH_SIZE}:
        sizes = [int(setting[PATCH_SIZE]) for setting in settings]
        found: Tensor = machine.sweep(x_t, alpha_bar, sizes, labels)
    else:
        found = machine.sweep_settings(x_t, alpha_bar, settings, labels)
    return found


def table_of(levels: Tensor, columns: Mapping[str, Tensor]) -> ParameterTable:
    """A table of these columns: with patch sizes a `ScaleTable`."""
    if PATCH_SIZE not in columns:
        return ParameterTable(levels, columns)
    further = {name: column for name, column in columns.items() if name != PATCH_SIZE}
    return ScaleTable(levels, columns[PATCH_SIZE], further)


@doorway(denoiser="network", schedule="schedule", images="noise")
def calibrate(
    network: Denoiser,
    machine: Sweepable | SettingsSweepable,
    schedule: Schedule,
    *,
    steps: int,
    patch_sizes: Sequence[int] | None,
    noise: Images,
    labels: Labels | None = None,
    objective: str = "cosine",
    statistic: str = "median",
    cap: int | None = None,
    further: Mapping[str, Sequence[float]] = MappingProxyType({}),
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
        patch_sizes: odd sizes to try, in increasing order; None where the patch size is not free.
        noise: (samples, channel, height, width), where the process starts.
        labels: (samples,) int64, handed to whoever is conditional.
        objective: "cosine" or "mse", between the two eps.
        statistic: "median" (the lower one of an even number), "mode" or "mean", see `STATISTICS`.
        cap: the greatest patch size to try; None sets no limit.
        further: values to try of what else is free in the machine, by name, in increasing order; see `tune`.
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
        candidates=candidates_of(patch_sizes, further, cap),
        labels=labels,
        statistic=statistic,
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
