"""The sigmoid schedule in discrete levels, as lucidrains' `sigmoid` has it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.system.checks import between, number_between, raise_for
from elslightning.system.errors import InputError

_GREATEST_BETA = 0.999


@dataclass(frozen=True)
class SigmoidSchedule(DiscreteSchedule):
    """`alpha_bar_i = g((i + 1) / n)`, g the falling part of a sigmoid from `start` to `end`, scaled to run from 1 to 0.

    `g(u) = (S(end / tau) - S((start + u (end - start)) / tau)) / (S(end / tau) - S(start / tau))`, S the logistic
    function (Jabri et al., 2212.11972; Chen, 2301.10972, eq. 3). No beta exceeds .999, so that the last alpha_bar is
    greater than 0.

    Args:
        start, end: the part of the sigmoid; start < end, both in [-20, 20].
        tau: its temperature, in (0, 100].
        levels: their number n, from 2 to 100,000.

    Raises:
        InputError: for values outside these.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    levels: int = 1000

    def __post_init__(self) -> None:
        raise_for(
            *number_between("schedule.start", self.start, -20, 20),
            *number_between("schedule.end", self.end, -20, 20),
            *number_between("schedule.tau", self.tau, 0, 100),
            *between("schedule.levels", self.levels, 2, 100_000),
        )
        if self.start >= self.end:
            raise InputError(f"schedule.start must be less than schedule.end, {self.end}, not {self.start}")
        self.check_levels()

    def betas(self) -> Float64[Tensor, " levels"]:
        """As `DiscreteSchedule.betas`."""
        ends = torch.tensor([self.start, self.end], dtype=torch.float64, device="cpu")
        start, end = (ends / self.tau).sigmoid()
        path = (
            torch.linspace(self.start, self.end, self.levels + 1, dtype=torch.float64, device="cpu") / self.tau
        ).sigmoid()
        power = (end - path) / (end - start)
        return (1 - power[1:] / power[:-1]).clamp(max=_GREATEST_BETA)
