"""Discrete schedules by their levels alone, for networks from elsewhere whose betas follow no formula of ours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.system.errors import InputError


@dataclass(frozen=True)
class LevelsSchedule(DiscreteSchedule):
    """The signal powers as they are: `alpha_bar_i = powers[i]`, diffusers' `alphas_cumprod`.

    Args:
        powers: from 2 to 100,000 of them, in (0, 1) and falling.

    Raises:
        InputError: for values outside these.
    """

    powers: Sequence[float]

    def __post_init__(self) -> None:
        listed = isinstance(self.powers, list | tuple) and 2 <= len(self.powers) <= 100_000
        if not listed or not all(isinstance(power, float) and math.isfinite(power) for power in self.powers):
            raise InputError("schedule.powers must be 2 to 100,000 numbers")
        object.__setattr__(self, "powers", tuple(self.powers))  # what is frozen can be hashed
        self.check_levels()

    @cached_property
    def levels_alpha_bar(self) -> Float64[Tensor, " levels"]:
        """As `DiscreteSchedule.levels_alpha_bar`, without a detour over betas."""
        return torch.tensor(self.powers, dtype=torch.float64, device="cpu")

    def betas(self) -> Float64[Tensor, " levels"]:
        """As `DiscreteSchedule.betas`."""
        powers = self.levels_alpha_bar
        return 1 - powers / torch.cat([powers.new_ones(1), powers[:-1]])
