"""The settings of calibration and comparison, checked before anything is done with them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines.parameters import check_parameter
from elslightning.measurement.calibration import OBJECTIVES
from elslightning.measurement.candidates import STATISTICS, capped
from elslightning.measurement.names import HELDOUT, NETWORK
from elslightning.system.checks import is_whole, one_of, raise_for, whole
from elslightning.system.errors import InputError

FURTHER = ("softness", "response", "threshold", "temperature", "smoothing")
"""What may be free in a machine beside the patch size, and has candidates here."""
OFFICIAL = "official"


@dataclass(frozen=True)
class CalibrationSettings:
    """How scales are calibrated; see `calibration.calibrate` and `heldout.heldout`.

    Args:
        steps: steps of the network's reverse process; one scale each.
        patch_sizes: odd patch sizes to try, increasing.
        num_samples: number of noises, or of held-out images, that the statistic is taken over.
        objective: "cosine" or "mse", against the network's eps; "heldout", against clean images, without a network.
        statistic: "median", "mode" or "mean"; None takes the paper's median, and the mean for "heldout".
        max_patch_size: leave out greater sizes; "network" stands for the network's receptive field, None for no limit.
        gradient_samples: noises over which the network's own receptive field is measured; 0 leaves that out.
        softness, response, threshold, temperature, smoothing: values to try of what else is free in a machine,
            increasing, in machines that were not given it; None leaves it to the machine, and as a value stands for
            infinity. Responses are tried last, see `elslightning.measurement.calibration.tune`.

    Raises:
        InputError: for a value that cannot work, naming it.
    """

    steps: int = 20
    patch_sizes: Sequence[int] = (3, 5, 7, 9, 11, 13, 15, 17)
    num_samples: int = 32
    objective: str = "cosine"
    statistic: str | None = None
    max_patch_size: int | str | None = None
    gradient_samples: int = 8
    softness: Sequence[float | None] | None = None
    response: Sequence[float | None] | None = None
    threshold: Sequence[float | None] | None = None
    temperature: Sequence[float | None] | None = None
    smoothing: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        if self.statistic is None:
            object.__setattr__(self, "statistic", "mean" if self.objective == HELDOUT else "median")
        problems = [
            *whole("calibration.steps", self.steps, 1),
            *whole("calibration.num_samples", self.num_samples, 1),
            *whole("calibration.gradient_samples", self.gradient_samples, 0),
            *one_of("calibration.objective", self.objective, (*OBJECTIVES, HELDOUT)),
            *one_of("calibration.statistic", self.statistic, STATISTICS),
        ]
        sizes = _listed(self.patch_sizes)
        odd = all(is_whole(size, 1) and size % 2 == 1 for size in sizes or ())
        if not sizes or not odd or sizes != sorted(set(sizes)):
            shown = repr(self.patch_sizes) if sizes is None else sizes
            problems.append(f"calibration.patch_sizes must be odd, positive and increasing, not {shown}")
        if isinstance(self.max_patch_size, str):
            if self.max_patch_size != NETWORK:
                problems.append(
                    f"calibration.max_patch_size must be a number, null or {NETWORK}, not {self.max_patch_size!r}"
                )
        elif self.max_patch_size is not None:
            problems += whole("calibration.max_patch_size", self.max_patch_size, 1)
        for name in FURTHER:
            problems += _candidate_problems(name, getattr(self, name))
        raise_for(*problems)
        if is_whole(self.max_patch_size):
            capped(self.patch_sizes, self.max_patch_size)  # type: ignore[arg-type]

    def cap(self, network: Denoiser | None) -> int | None:
        """The greatest patch size to try against a network; None where there is no limit.

        Raises:
            InputError: where it is the network's receptive field, and the network states none.
        """
        if not isinstance(self.max_patch_size, str):
            return self.max_patch_size
        if not hasattr(network, "receptive_field"):
            raise InputError("calibration.max_patch_size=network needs a network that states its receptive field")
        return network.receptive_field  # type: ignore[union-attr, return-value]

    @property
    def further(self) -> dict[str, list[float]]:
        """The values to try of what may be free in a machine beside the patch size, by name."""
        given = {name: _listed(getattr(self, name)) for name in FURTHER}
        return {name: list(map(_value, values)) for name, values in given.items() if values}


def _value(value: float | None) -> float:
    """A value to try: None stands for infinity, as in files of scales."""
    return math.inf if value is None else float(value)


def _candidate_problems(name: str, values: Any) -> list[str]:
    """What is wrong with the values to try of a parameter; nothing of None."""
    if values is None:
        return []
    listed = _listed(values)
    numbers = all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in listed or ()
    )
    if not listed or not numbers or (tried := list(map(_value, listed))) != sorted(set(tried)):
        shown = repr(values) if listed is None else listed
        return [f"calibration.{name} must be increasing numbers, not {shown}"]
    try:
        for value in tried:
            check_parameter(name, value)
    except InputError as error:
        return [f"calibration.{problem}" for problem in error.problems]
    return []


@dataclass(frozen=True)
class ComparisonSettings:
    """How machines and network are compared; see `elslightning.measurement.comparing.compare`.

    Args:
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's: one number or several. The first gives the logged scalars.
        num_pairs: number of noises.
        every_n_epochs: also compare while training, after every so many epochs; None compares at the end only.
        batch_size: pairs sampled at once.
        compatibility: "official" has the machines err as in the paper's code: they start a step late, taking the noise
            for the state at t = 1 - 1 / steps, and at each step use the scale of the step before. None has them right.
        grid: name of the schedule on whose grid of noise levels all is done, calibration included, out of
            `elslightning.diffusion.schedules.SCHEDULES`; None takes the schedule of the network. Samples that are not
            compared (`elslightning sample`) go along the network's own.
        handover: numbers of steps, increasing, after which the theory takes over from the network; those that are not
            below `steps` are left out, as is all of it with None or an empty list.
        stepwise: whether all machines are also held against the network at the network's own states, step by step,
            which costs another sample of each; see `elslightning.measurement.stepwise`.

    Raises:
        InputError: for a value that cannot work, naming it.
    """

    steps: int = 20
    network_steps: int | Sequence[int] = 20
    num_pairs: int = 100
    every_n_epochs: int | None = None
    batch_size: int = 64
    compatibility: str | None = None
    grid: str | None = None
    handover: Sequence[int] | None = None
    stepwise: bool = False

    def __post_init__(self) -> None:
        problems: list[str] = []
        counts = [self.network_steps] if is_whole(self.network_steps) else _listed(self.network_steps)
        if not counts:
            problems.append(
                "comparison.network_steps must name at least one number of steps"
                + ("" if counts is not None else f", not {self.network_steps!r}")
            )
        for count in counts or ():
            problems += whole("comparison.network_steps", count, 1)
        if self.compatibility not in (None, OFFICIAL):
            problems.append(f"comparison.compatibility must be null or {OFFICIAL}, not {self.compatibility!r}")
        if self.grid is not None:
            problems += one_of("comparison.grid", self.grid, SCHEDULES)
        problems += whole("comparison.steps", self.steps, 2 if self.compatibility == OFFICIAL else 1)
        problems += whole("comparison.num_pairs", self.num_pairs, 1)
        problems += whole("comparison.batch_size", self.batch_size, 1)
        if self.every_n_epochs is not None:
            problems += whole("comparison.every_n_epochs", self.every_n_epochs, 1)
        after = [] if self.handover is None else _listed(self.handover)
        if after is None or not all(is_whole(k, 0) for k in after) or after != sorted(set(after)):
            shown = repr(self.handover) if after is None else after
            problems.append(f"comparison.handover must be increasing numbers of steps, at least 0, not {shown}")
        if not isinstance(self.stepwise, bool):
            problems.append(f"comparison.stepwise must be true or false, not {self.stepwise!r}")
        raise_for(*problems)

    def schedule(self, own: Schedule) -> Schedule:
        """The schedule whose grid all processes go along: that of `grid`, or the network's own."""
        return own if self.grid is None else SCHEDULES[self.grid]()

    @property
    def skip(self) -> int:
        """How many of the first times the machines leave out: 1 if they err as the paper's code does, else 0."""
        return int(self.compatibility == OFFICIAL)


def _listed(values: Any) -> list[Any] | None:
    """The values of a list or what is like one; None for anything else."""
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str | bytes) else None
