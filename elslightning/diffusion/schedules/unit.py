"""The schedule of a network of pixels in [0, 1], in our terms."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.system.errors import InputError


@dataclass(frozen=True)
class UnitSchedule(Schedule):
    """The same times at twice the noise: `sigma = 2 sigma_unit`, since pixels in [-1, 1] reach twice as far.

    With `alpha_bar_unit = 1 / (1 + sigma_unit²)` it is `alpha_bar = alpha_bar_unit / (4 - 3 alpha_bar_unit)`.

    Args:
        schedule: in the network's own terms.

    Raises:
        InputError: if it is none.

    >>> import torch
    >>> from elslightning.diffusion.schedule import CosineSchedule
    >>> halves = torch.tensor([0.5])
    >>> schedule = UnitSchedule(CosineSchedule())
    >>> bool((schedule.time(schedule.alpha_bar(halves)) - halves).abs() < 1e-12)
    True
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise InputError(f"schedule.schedule must be a schedule, not {self.schedule!r}")

    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.alpha_bar`."""
        unit = self.schedule.alpha_bar(t)
        return unit / (4 - 3 * unit)

    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.time`."""
        return self.schedule.time(unit_alpha_bar(alpha_bar))

    def grid(self, steps: int) -> Float64[Tensor, " times"]:
        """As `Schedule.grid`, that of the network's own schedule."""
        return self.schedule.grid(steps)


def unit_alpha_bar(alpha_bar: Tensor) -> Float64[Tensor, "..."]:
    """The signal power of the same noise among pixels in [0, 1], where sigma is half: `4 alpha_bar / (1 + 3
    alpha_bar)`."""
    alpha_bar = alpha_bar.double()
    return 4 * alpha_bar / (1 + 3 * alpha_bar)
