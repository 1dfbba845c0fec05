"""Schedules of so many levels, each given by the share of noise that one more step adds."""

from abc import abstractmethod
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedule import Schedule, checked_times
from elslightning.system.errors import InputError

_LEAST_ALPHA_BAR = 1e-12


class DiscreteSchedule(Schedule):
    """A Markov chain of n levels: `alpha_bar_i = Π_{j ≤ i} (1 - beta_j)`, i = 0 … n - 1 (Ho et al., 2006.11239, eq. 4).

    Level i is the time `(i + 1) / n`. Between two levels log-SNR `ln(alpha_bar / (1 - alpha_bar))` is a straight line
    in t; below the first, where it has no bound, `sigma = sqrt(1 / alpha_bar - 1)` falls to 0 in one.
    """

    @abstractmethod
    def betas(self) -> Float64[Tensor, " levels"]:
        """The share of noise that each step adds, (levels,) in (0, 1), on the CPU whatever device is the default."""

    def check_levels(self) -> None:
        """Raises InputError unless every level has less signal than the one before, and the last has some."""
        powers = self.levels_alpha_bar
        if not (bool((powers.diff() < 0).all()) and powers[0] < 1 and powers[-1] >= _LEAST_ALPHA_BAR):
            raise InputError(
                f"the schedule needs alpha_bar to fall from level to level and to end above {_LEAST_ALPHA_BAR}; it "
                f"runs from {float(powers[0]):.3g} to {float(powers[-1]):.3g}"
            )

    @cached_property
    def levels_alpha_bar(self) -> Float64[Tensor, " levels"]:
        """The signal power of every level, falling."""
        return (1 - self.betas()).cumprod(dim=0)

    @cached_property
    def _log_snr(self) -> Float64[Tensor, " levels"]:
        return self.levels_alpha_bar.logit()

    @cached_property
    def _least_sigma(self) -> float:
        return float((1 / self.levels_alpha_bar[0] - 1).sqrt())

    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.alpha_bar`; at the times of levels, that of the chain."""
        table = self._log_snr.to(t.device)
        position = checked_times(t) * len(table) - 1
        lower = position.floor().clamp(0, len(table) - 2).long()
        inside = torch.lerp(table[lower], table[lower + 1], position - lower).sigmoid()
        below = 1 / (1 + (self._least_sigma * (position + 1)).square())
        return torch.where(position < 0, below, inside)

    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.time`."""
        alpha_bar = alpha_bar.double()
        table = self._log_snr.to(alpha_bar.device)
        log_snr = alpha_bar.logit()
        lower = (torch.searchsorted(-table, -log_snr, right=True) - 1).clamp(0, len(table) - 2)
        position = lower + (log_snr - table[lower]) / (table[lower + 1] - table[lower])
        below = (1 / alpha_bar - 1).sqrt() / self._least_sigma - 1
        return (torch.where(log_snr > table[0], below, position) + 1) / len(table)

    def grid(self, steps: int) -> Float64[Tensor, " times"]:
        """As `Schedule.grid`, each time rounded to that of the nearest level: nothing is interpolated.

        Raises:
            InputError: if steps < 1, or greater than the number of levels.
        """
        count = len(self.levels_alpha_bar)
        if steps > count:
            raise InputError(f"a schedule of {count} levels has no reverse process of {steps} steps")
        return (super().grid(steps) * count).round() / count
