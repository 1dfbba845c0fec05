"""The straight paths of flow matching, seen as a schedule."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.schedule import Schedule, checked_times
from elslightning.system.checks import number_between, raise_for


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """The noise levels of `z = (1 - q) x0 + q eps`: `alpha_bar = (1 - q)² / ((1 - q)² + q²)`, with `q = end · t`.

    Lipman et al. (2210.02747), Liu et al. (2209.03003), divided by `sqrt((1 - q)² + q²)` to keep the variance.

    Args:
        end: in (0.5, 1), the share of noise at t = 1. At 1 itself nothing of the image would be left, and it would
            not be defined what a network predicts; .9875 is sigma = 79, about the noise at which the others end.

    Raises:
        InputError: for a value outside these.
    """

    end: float = 0.9875

    def __post_init__(self) -> None:
        raise_for(*number_between("schedule.end", self.end, 0.5, 1))

    def alpha_bar(self, t: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.alpha_bar`."""
        noise = checked_times(t) * self.end
        signal = 1 - noise
        return signal.square() / (signal.square() + noise.square())

    def time(self, alpha_bar: Tensor) -> Float64[Tensor, "..."]:
        """As `Schedule.time`."""
        alpha_bar = alpha_bar.double()
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return noise / (signal + noise) / self.end
