"""The linear schedule of DDPM."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.system.checks import between, number_between, raise_for


@dataclass(frozen=True)
class LinearSchedule(DiscreteSchedule):
    """beta from `beta_start` to `beta_end` in equal steps (Ho et al., 2006.11239, section 4).

    Args:
        beta_start, beta_end: in (0, 1).
        levels: their number, from 2 to 100,000.

    Raises:
        InputError: for values outside these.

    >>> round(LinearSchedule().alpha_bar(torch.ones(1)).item(), 8)
    4.036e-05
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    levels: int = 1000

    def __post_init__(self) -> None:
        raise_for(
            *number_between("schedule.beta_start", self.beta_start, 0, 1),
            *number_between("schedule.beta_end", self.beta_end, 0, 1),
            *between("schedule.levels", self.levels, 2, 100_000),
        )
        self.check_levels()

    def betas(self) -> Float64[Tensor, " levels"]:
        """As `DiscreteSchedule.betas`."""
        return torch.linspace(self.beta_start, self.beta_end, self.levels, dtype=torch.float64, device="cpu")
