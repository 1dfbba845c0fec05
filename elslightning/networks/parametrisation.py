"""What networks from elsewhere are fed and return, as a table: one row per parametrisation, one per way to tell time.

The equations are those of `elslightning.diffusion.prediction`; x_t and alpha_bar as there.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion import prediction as p
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules.discrete import DiscreteSchedule
from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.system.errors import InputError

Times = Float64[Tensor, " batch"]


class Parametrisation(NamedTuple):
    """How one kind of network is asked.

    Attributes:
        feed: (x_t, alpha_bar, sigma_data) -> the images that the network sees.
        x0: (x_t, what it returned, alpha_bar, sigma_data) -> the posterior mean.
        time: how it is told the noise level, a name out of `TIMES`; None: as its schedule has it.
    """

    feed: Callable[[Images, AlphaBar, float], Images]
    x0: Callable[[Images, Images, AlphaBar, float], Images]
    time: str | None = None


def _as_it_is(x_t: Images, alpha_bar: AlphaBar, sigma_data: float) -> Images:
    return x_t


def _of_y(x_t: Images, alpha_bar: AlphaBar, sigma_data: float) -> Images:
    return p.edm_input(x_t, alpha_bar)[0]


def _scaled(x_t: Images, alpha_bar: AlphaBar, sigma_data: float) -> Images:
    return p.edm_raw_input(x_t, alpha_bar, sigma_data)[0]


def _straight(x_t: Images, alpha_bar: AlphaBar, sigma_data: float) -> Images:
    return p.flow_input(x_t, alpha_bar)[0]


PARAMETRISATIONS: Mapping[str, Parametrisation] = {
    "eps": Parametrisation(_as_it_is, lambda x_t, out, alpha_bar, _: p.x0_from_eps(x_t, out, alpha_bar)),
    "v": Parametrisation(_as_it_is, lambda x_t, out, alpha_bar, _: p.x0_from_v(x_t, out, alpha_bar)),
    "x0": Parametrisation(_as_it_is, lambda x_t, out, alpha_bar, _: out),
    "score": Parametrisation(_as_it_is, lambda x_t, out, alpha_bar, _: p.x0_from_score(x_t, out, alpha_bar)),
    "edm": Parametrisation(_of_y, lambda x_t, out, alpha_bar, _: out, "sigma"),
    # y = x0 + sigma eps is x_t / a, so that y - sigma eps is (x_t - s eps) / a.
    "edm_eps": Parametrisation(_of_y, lambda x_t, out, alpha_bar, _: p.x0_from_eps(x_t, out, alpha_bar), "sigma"),
    "edm_raw": Parametrisation(_scaled, p.x0_from_edm_raw, "log_sigma"),
    "flow": Parametrisation(
        _straight, lambda x_t, out, alpha_bar, _: p.x0_from_flow_noise(x_t, out, alpha_bar), "noise"
    ),
    "flow_data": Parametrisation(
        _straight, lambda x_t, out, alpha_bar, _: p.x0_from_flow_data(x_t, out, alpha_bar), "signal"
    ),
}
"""By the word of `network.prediction`: eps, v, x0, the score; EDM's D(y; sigma), its sibling that returns eps, and its
raw F; flows with the noise at t = 1 (u = eps - x0) and with the data at t = 1 (u = x0 - eps)."""


def _position(alpha_bar: AlphaBar, schedule: Schedule) -> Times:
    """The number of the level, from 0 on; between two levels a straight line in log-SNR, as the schedule has it."""
    if not isinstance(schedule, DiscreteSchedule):
        raise InputError(
            f"a network that counts levels needs a discrete schedule, such as linear or squaredcos, not "
            f"{type(schedule).__name__}"
        )
    count = len(schedule.levels_alpha_bar)
    position = schedule.time(alpha_bar) * count - 1
    whole = position.round()
    # A time of the grid is that of a level but for its last digits.
    return position.where((position - whole).abs() > 1e-6, whole).clamp(0, count - 1)


TIMES: Mapping[str, Callable[[AlphaBar, Schedule], Times]] = {
    "unit": lambda alpha_bar, schedule: schedule.time(alpha_bar).clamp(max=1),
    "levels": _position,
    "whole": lambda alpha_bar, schedule: _position(alpha_bar, schedule).round(),
    "sigma": lambda alpha_bar, schedule: ((1 - alpha_bar) / alpha_bar).sqrt(),
    "log_sigma": lambda alpha_bar, schedule: ((1 - alpha_bar) / alpha_bar).log() / 8,
    "noise": lambda alpha_bar, schedule: _noise_share(alpha_bar),
    "signal": lambda alpha_bar, schedule: 1 - _noise_share(alpha_bar),
}
"""What a network may be told of the noise level: its schedule's time in [0, 1], the number of the level (`whole` rounds
it, for a table of embeddings), sigma, ln(sigma) / 4, the share of noise s / (a + s), that of the image."""


def _noise_share(alpha_bar: AlphaBar) -> Times:
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return noise / (signal + noise)
