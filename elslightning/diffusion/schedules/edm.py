"""The sigmas of EDM."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedule import LEAST_TIME, Schedule, checked_times
from elslightning.system.checks import number_between, raise_for
from elslightning.system.errors import InputError


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """`sigma = (sigma_min^(1/rho) + u (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho` (Karras et al., 2206.00364, eq. 5).

    `alpha_bar = 1 / (1 + sigma²)`. u runs from 0 at t = 0.001 to 1 at t = 1; below that time sigma falls to 0 in a
    straight line. A reverse process takes EDM's own steps: sigma_max … sigma_min, equal in u, and then 0.

    Args:
        sigma_min, sigma_max: in (0, 1000), the first less than the second.
        rho: in (0, 100).

    Raises:
        InputError: for values outside these.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        raise_for(
            *number_between("schedule.sigma_min", self.sigma_min, 0, 1000),
            *number_between("schedule.sigma_max", self.sigma_max, 0, 1000),
            *number_between("schedule.rho", self.rho, 0, 100),
        )
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                f"schedule.sigma_min must be less than schedule.sigma_max, {self.sigma_max}, not {self.sigma_min}"
            )

    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.alpha_bar`."""
        t = checked_times(t)
        low, high = self._roots()
        share = ((t - LEAST_TIME) / (1 - LEAST_TIME)).clamp(min=0)
        sigma = torch.where(t < LEAST_TIME, self.sigma_min * t / LEAST_TIME, (low + share * (high - low)) ** self.rho)
        return 1 / (1 + sigma.square())

    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.time`."""
        alpha_bar = alpha_bar.double()
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        low, high = self._roots()
        share = (sigma ** (1 / self.rho) - low) / (high - low)
        return torch.where(
            sigma < self.sigma_min, LEAST_TIME * sigma / self.sigma_min, LEAST_TIME + share * (1 - LEAST_TIME)
        )

    def grid(self, steps: int) -> Float64[Tensor, " times"]:
        """The times of EDM's steps: of `sigma_max` … `sigma_min`, equal in u, and 0; errors as of `Schedule.grid`."""
        whole = super().grid(steps)
        share = super().grid(steps - 1) if steps > 1 else whole[:1]
        times = (LEAST_TIME + share * (1 - LEAST_TIME)).clamp(max=1)
        return torch.cat([times, times.new_zeros(1)])

    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
