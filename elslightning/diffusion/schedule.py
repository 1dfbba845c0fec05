"""Time and noise level: what a schedule is, the paper's cosine schedule, and forward noising."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.system.errors import InputError

LEAST_TIME = 1e-3
"""The least time at which networks are trained: t = 0 has no noise to predict."""


class Schedule(ABC):
    """The noise level at every time t in [0, 1]: alpha_bar falls from 1 at t = 0 to nearly 0 at t = 1.

    Networks are told the time, and reverse processes go along a grid of times; all else is said in alpha_bar, so that
    theory and network of one comparison share the grid of one schedule.
    """

    @abstractmethod
    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """Signal power at times t in [0, 1], in float64, on the device of t; 1 at t = 0, and greater than 0 everywhere.

        Raises:
            InputError: if a time lies outside [0, 1].
        """

    @abstractmethod
    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """The time at which the signal power is alpha_bar; the inverse of `alpha_bar`, in float64.

        Signal powers below `alpha_bar(1)` give times above 1.
        """

    def grid(self, steps: int) -> Float64[Tensor, " times"]:
        """The times of a reverse process of `steps` steps, from 1 down to 0: `t_i = i / steps`, i = steps … 0.

        Raises:
            InputError: if steps < 1, or more than the schedule has.
        """
        if steps < 1:
            raise InputError(f"a reverse process needs at least 1 step, not {steps}")
        return torch.arange(steps, -1, -1, dtype=torch.float64) / steps

    def noise_levels(self, steps: int) -> Float64[Tensor, " steps"]:
        """The signal powers at which a reverse process of `steps` steps evaluates its denoiser, from t = 1 on."""
        return self.alpha_bar(self.grid(steps)[:-1])


def checked_times(t: Tensor) -> Float64[Tensor, "..."]:
    """Times in float64.

    Raises:
        InputError: if one lies outside [0, 1].
    """
    t = t.double()
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"times must lie in [0, 1], not in [{t.min():.6g}, {t.max():.6g}]")
    return t


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """`alpha_bar(t) = cos²(t / stretch · π / 2)` for t in [0, 1], as in the paper's code.

    Args:
        stretch: greater than 1, so that `alpha_bar(1)` stays above 0: 1.55e-4 for the paper's 1.008.
            (Adding the offset to t instead gives alpha_bar(1) ≈ 4e-33, and 1 / sqrt(alpha_bar) explodes.)

    Raises:
        InputError: if stretch is too close to 1, that is if alpha_bar(1) < 1e-6, or not finite.

    >>> round(CosineSchedule().alpha_bar(torch.tensor([1.0])).item(), 6)
    0.000155
    """

    stretch: float = 1.008

    def __post_init__(self) -> None:
        number = isinstance(self.stretch, int | float) and not isinstance(self.stretch, bool)
        if not (number and math.isfinite(self.stretch) and self.stretch > 1 and self._alpha_bar_at_one() >= 1e-6):
            raise InputError(f"schedule.stretch must exceed 1.0007, so that alpha_bar(1) >= 1e-6; it is {self.stretch}")

    def _alpha_bar_at_one(self) -> float:
        return math.cos(math.pi / 2 / self.stretch) ** 2

    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.alpha_bar`."""
        return torch.cos(checked_times(t) * (math.pi / 2 / self.stretch)) ** 2

    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.time`."""
        alpha_bar = alpha_bar.double()
        # atan2 keeps its digits at both ends, where acos(sqrt(alpha_bar)) loses half of them.
        angle = torch.atan2((1 - alpha_bar).clamp(min=0).sqrt(), alpha_bar.sqrt())
        return angle * (2 * self.stretch / math.pi)


def noise_coefficients(
    alpha_bar: AlphaBar, like: Tensor
) -> tuple[Float[Tensor, "batch 1 1 1"], Float[Tensor, "batch 1 1 1"]]:
    """`sqrt(alpha_bar)` and `sqrt(1 - alpha_bar)`, computed in float64, shaped to multiply images.

    Args:
        alpha_bar: (batch,) float64 in [0, 1], on any device.
        like: the images to multiply; gives device and dtype.
    """
    signal = alpha_bar.sqrt().to(like.device, like.dtype)
    noise = (1 - alpha_bar).sqrt().to(like.device, like.dtype)
    return signal[:, None, None, None], noise[:, None, None, None]


def add_noise(x0: Images, eps: Images, alpha_bar: AlphaBar) -> Images:
    """The forward process: `x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`.

    Args:
        x0, eps: (batch, channel, height, width).
        alpha_bar: (batch,) float64 in [0, 1].
    """
    signal, noise = noise_coefficients(alpha_bar, x0)
    return signal * x0 + noise * eps
