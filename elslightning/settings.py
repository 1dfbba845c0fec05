"""The settings of calibration and comparison, checked before anything is done with them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from elslightning.calibration import OBJECTIVES, STATISTICS, capped
from elslightning.errors import InputError
from elslightning.heldout import HELDOUT

NETWORK = "network"
OFFICIAL = "official"


def _at_least(minimum: int, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise InputError(f"{name.replace('__', '.')} must be a whole number, at least {minimum}, not {value!r}")


def _one_of(choices: Collection[str], **values: Any) -> None:
    for name, value in values.items():
        if value not in choices:
            raise InputError(f"{name.replace('__', '.')} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class CalibrationSettings:
    """How scales are calibrated; see `elslightning.calibration.calibrate` and `elslightning.heldout.heldout`.

    Args:
        steps: steps of the network's reverse process; one scale each.
        patch_sizes: odd patch sizes to try, increasing.
        num_samples: number of noises, or of held-out images, that the statistic is taken over.
        objective: "cosine" or "mse", against the network's eps; "heldout", against clean images, without a network.
        statistic: "median", "mode" or "mean"; None takes the paper's median, and the mean for "heldout".
        max_patch_size: leave out greater sizes; "network" stands for the network's receptive field, None for no limit.
        gradient_samples: noises over which the network's own receptive field is measured; 0 leaves that out.

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

    def __post_init__(self) -> None:
        _at_least(1, calibration__steps=self.steps, calibration__num_samples=self.num_samples)
        _at_least(0, calibration__gradient_samples=self.gradient_samples)
        sizes = list(self.patch_sizes)
        odd = all(isinstance(size, int) and size >= 1 and size % 2 == 1 for size in sizes)
        if not sizes or not odd or sizes != sorted(set(sizes)):
            raise InputError(f"calibration.patch_sizes must be odd, positive and increasing, not {sizes}")
        _one_of((*OBJECTIVES, HELDOUT), calibration__objective=self.objective)
        if self.statistic is None:
            object.__setattr__(self, "statistic", "mean" if self.objective == HELDOUT else "median")
        _one_of(STATISTICS, calibration__statistic=self.statistic)
        if isinstance(self.max_patch_size, str):
            if self.max_patch_size != NETWORK:
                raise InputError(
                    f"calibration.max_patch_size must be a number, null or {NETWORK}, not {self.max_patch_size!r}"
                )
        elif self.max_patch_size is not None:
            _at_least(1, calibration__max_patch_size=self.max_patch_size)
            capped(sizes, self.max_patch_size)


@dataclass(frozen=True)
class ComparisonSettings:
    """How machines and network are compared; see `elslightning.comparison.compare`.

    Args:
        steps: steps of the machines' reverse process.
        network_steps: steps of the network's: one number or several. The first gives the logged scalars.
        num_pairs: number of noises.
        every_n_epochs: also compare while training, after every so many epochs; None compares at the end only.
        batch_size: pairs sampled at once.
        compatibility: "official" has the machines err as in the paper's code: they start a step late, taking the noise
            for the state at t = 1 - 1 / steps, and at each step use the scale of the step before. None has them right.

    Raises:
        InputError: for a value that cannot work, naming it.
    """

    steps: int = 20
    network_steps: int | Sequence[int] = 20
    num_pairs: int = 100
    every_n_epochs: int | None = None
    batch_size: int = 64
    compatibility: str | None = None

    def __post_init__(self) -> None:
        counts = [self.network_steps] if isinstance(self.network_steps, int) else list(self.network_steps)
        if not counts:
            raise InputError("comparison.network_steps must name at least one number of steps")
        for count in counts:
            _at_least(1, comparison__network_steps=count)
        if self.compatibility not in (None, OFFICIAL):
            raise InputError(f"comparison.compatibility must be null or {OFFICIAL}, not {self.compatibility!r}")
        _at_least(1 if self.compatibility is None else 2, comparison__steps=self.steps)
        _at_least(
            1,
            comparison__num_pairs=self.num_pairs,
            comparison__batch_size=self.batch_size,
            comparison__every_n_epochs=1 if self.every_n_epochs is None else self.every_n_epochs,
        )
