"""The squared cosine in discrete levels, as diffusers' `squaredcos_cap_v2` and lucidrains' `cosine` have it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.system.checks import between, raise_for

_GREATEST_BETA = 0.999


@dataclass(frozen=True)
class SquaredCosineSchedule(DiscreteSchedule):
    """`alpha_bar_i = f(i + 1) / f(0)`, `f(i) = cos²((i / n + .008) / 1.008 · π / 2)`.

    Nichol & Dhariwal (2102.09672), eq. 17.
    No beta exceeds .999: without that the last alpha_bar would be 0. It is 2.43e-9 for 1,000 levels, and the one before
    2.43e-6: a network that predicts eps says nothing of the image there, for its error is divided by sqrt(alpha_bar).

    Args:
        levels: their number n, from 2 to 100,000.

    Raises:
        InputError: for another number.
    """

    levels: int = 1000

    def __post_init__(self) -> None:
        raise_for(*between("schedule.levels", self.levels, 2, 100_000))
        self.check_levels()

    def betas(self) -> Float64[Tensor, " levels"]:
        """As `DiscreteSchedule.betas`."""
        times = torch.arange(self.levels + 1, dtype=torch.float64, device="cpu") / self.levels
        power = ((times + 0.008) / 1.008 * (math.pi / 2)).cos().square()
        return (1 - power[1:] / power[:-1]).clamp(max=_GREATEST_BETA)
