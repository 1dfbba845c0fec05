"""Networks from elsewhere, as posterior means: ideal networks of a Gaussian, in every library's own terms."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.diffusion.schedules.edm import EDMSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule
from elslightning.diffusion.schedules.unit import UnitSchedule
from elslightning.networks.modules import ModuleDenoiser
from elslightning.networks.parametrisation import PARAMETRISATIONS
from elslightning.system.errors import InputError
from elslightning.testing import DenoiserContract, random_noise

MEAN, VARIANCE, DATA = 0.3, 0.4, 0.6
"""Every pixel of x0 is of N(MEAN, VARIANCE), so that the posterior mean is known; DATA is EDM's constant."""
LEVELS = LinearSchedule().levels_alpha_bar
SHAPE = (4, 2, 2, 3)


def column(values):
    return values[:, None, None, None]


def posterior(y, sigma, mean=MEAN, variance=VARIANCE):
    """`E[x0 | y = x0 + sigma eps]`."""
    return (variance * y + column(sigma) ** 2 * mean) / (variance + column(sigma) ** 2)


class Ideal(nn.Module):
    """A network in one parametrisation, of a Gaussian; it knows nothing but what it is fed."""

    def __init__(self, returns, mean=MEAN, variance=VARIANCE):
        super().__init__()
        self.returns, self.mean, self.variance = returns, mean, variance
        self.weight = nn.Parameter(torch.zeros(()))  # without one it would be no network

    def of_y(self, y, sigma):
        return posterior(y, sigma, self.mean, self.variance)

    def forward(self, x, told, labels=None):
        return getattr(self, self.returns)(x, told)

    def of_level(self, x_t, level):
        """x0, a and s at a level of the linear schedule."""
        assert_close(level, level.round(), rtol=0, atol=0)
        power = LEVELS[level.long()]
        a, s = power.sqrt(), (1 - power).sqrt()
        return self.of_y(x_t / column(a), s / a), column(a), column(s)

    def eps(self, x_t, level):
        x0, a, s = self.of_level(x_t, level)
        return (x_t - a * x0) / s

    def v(self, x_t, level):
        x0, a, s = self.of_level(x_t, level)
        return a * (x_t - a * x0) / s - s * x0

    def x0(self, x_t, level):
        return self.of_level(x_t, level)[0]

    def score(self, x_t, level):
        x0, a, s = self.of_level(x_t, level)
        return (a * x0 - x_t) / s**2

    def edm(self, y, sigma):
        return self.of_y(y, sigma)

    def edm_eps(self, y, sigma):
        return (y - self.of_y(y, sigma)) / column(sigma)

    def edm_raw(self, scaled, noise):
        sigma = (4 * noise).exp()
        total = (sigma**2 + DATA**2).sqrt()
        y = scaled * column(total)
        return (self.of_y(y, sigma) - column(DATA / total) ** 2 * y) / column(sigma * DATA / total)

    def flow(self, z, q):
        return (z - self.of_y(z / column(1 - q), q / (1 - q))) / column(q)

    def flow_data(self, z, t):
        return -self.flow(z, 1 - t)


class Lucidrains(Ideal):
    def model_predictions(self, x, t):
        assert t.dtype == torch.long
        return SimpleNamespace(pred_x_start=self.x0(x, t))


class Smalldiffusion(Ideal):
    def predict_eps(self, x, sigma):
        assert sigma.shape == (len(x), 1, 1, 1)
        return self.edm_eps(x, sigma[:, 0, 0, 0])


class Azula(Ideal):
    """With a schedule of its own, in which signal and noise are of any sum."""

    def schedule(self, t):
        return 2 - t, 200 * t**2 + 1e-4

    def forward(self, x_t, t):
        signal, noise = self.schedule(t)
        return SimpleNamespace(mean=self.of_y(x_t / column(signal), noise / signal))


class Twice(Ideal):
    """With a learned variance behind the mean."""

    def forward(self, x, told, labels=None):
        return torch.cat([super().forward(x, told), torch.full_like(x, torch.nan)], dim=1)


NETWORKS = {
    **{name: lambda name=name: ModuleDenoiser(Ideal(name), name, "linear") for name in ("eps", "v", "x0", "score")},
    **{
        name: lambda name=name: ModuleDenoiser(Ideal(name), name, sigma_data=DATA)
        for name in PARAMETRISATIONS
        if name not in ("eps", "v", "x0", "score")
    },
    "learned variance": lambda: ModuleDenoiser(Twice("eps"), "eps", "linear"),
    "lucidrains": lambda: ModuleDenoiser(Lucidrains("x0"), schedule="linear", interface="lucidrains"),
    "smalldiffusion": lambda: ModuleDenoiser(Smalldiffusion("eps"), interface="smalldiffusion"),
    "k_diffusion": lambda: ModuleDenoiser(Ideal("edm"), interface="k_diffusion"),
    "azula": lambda: ModuleDenoiser(Azula("x0"), interface="azula"),
    "thousandths": lambda: ModuleDenoiser(Thousandths("flow"), "flow", time_factor=1000),
}


class Thousandths(Ideal):
    """A flow that counts as those of diffusers."""

    def forward(self, x, told, labels=None):
        return super().forward(x, told / 1000)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ideal_network_of_a_gaussian_gives_its_posterior_mean(name):
    denoiser = NETWORKS[name]().double()
    alpha_bar = LEVELS[[0, 250, 600, 999]]  # of levels that there are: nothing is interpolated
    x_t = random_noise(*SHAPE)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    expected = posterior(x_t / column(alpha_bar.sqrt()), sigma)
    if denoiser.least_alpha_bar > alpha_bar[-1]:  # at more noise than it has, it is asked at its last time
        x_t, alpha_bar, expected = x_t[:3], alpha_bar[:3], expected[:3]
    assert_close(denoiser(x_t, alpha_bar), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["eps", "v", "edm", "edm_raw", "flow"])
def test_pixels_between_0_and_1_are_seen_as_ours(name):
    """(x0 + 1) / 2 has half the deviation; its network is asked at half the sigma."""
    network = Ideal(name, (MEAN + 1) / 2, VARIANCE / 4)
    schedule = LinearSchedule() if name in ("eps", "v") else None
    denoiser = ModuleDenoiser(network, name, schedule, pixels=(0, 1), sigma_data=DATA).double()
    alpha_bar = denoiser.schedule.noise_levels(4)
    x_t = random_noise(*SHAPE)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    expected = posterior(x_t / column(alpha_bar.sqrt()), sigma)
    assert_close(denoiser(x_t, alpha_bar), expected, rtol=1e-9, atol=1e-9)


def test_the_schedule_of_pixels_between_0_and_1_has_twice_the_sigma():
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    for own in (CosineSchedule(), EDMSchedule(), LinearSchedule()):
        ours = UnitSchedule(own)
        sigma, theirs = ((1 / schedule.alpha_bar(t) - 1).sqrt() for schedule in (ours, own))
        assert_close(sigma, 2 * theirs, rtol=1e-12, atol=0)
        assert_close(ours.time(ours.alpha_bar(t)), t, rtol=1e-9, atol=0)
        assert torch.equal(ours.grid(7), own.grid(7))


class Conditional(nn.Module):
    """Returns images that depend on the label."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 1)

    def forward(self, x, t, labels=None):
        out = self.mix(x) * (1 + column(t))
        return out if labels is None else out + column(labels).to(x)


@pytest.mark.parametrize("conditional", [False, True])
class TestContract(DenoiserContract):
    """A module of anyone keeps what denoisers keep."""

    def make(self, images, labels) -> Denoiser:
        torch.manual_seed(0)
        classes = None if labels is None else self.classes
        return ModuleDenoiser(Conditional(), "v", "cosine", channels=self.channels, num_classes=classes)


REFUSED = {
    "no prediction": ({"schedule": "cosine"}, r"network.prediction must be one of eps, v, x0, score.*, not None"),
    "no schedule": (
        {"prediction": "eps"},
        "network.schedule must name the schedule it was trained with",
    ),
    "unknown schedule": ({"prediction": "v", "schedule": "x"}, "network.schedule must be one of cosine"),
    "unknown interface": ({"interface": "x"}, "network.interface must be one of plain, diffusers, lucidrains"),
    "pixels": ({"prediction": "edm", "pixels": (0, 255)}, r"network.pixels must be \[-1,1\] or \[0,1\]"),
    "levels of none": (
        {"prediction": "eps", "schedule": "cosine", "time": "levels"},
        "a network that counts levels needs a discrete schedule, not CosineSchedule",
    ),
    "another library": (
        {"schedule": "linear", "interface": "lucidrains"},
        "interface=lucidrains needs a network with model_predictions: Conditional has none",
    ),
    "another prediction": (
        {"prediction": "eps", "schedule": "linear", "interface": "lucidrains"},
        "network.prediction is x0 with interface=lucidrains, not 'eps'",
    ),
}


@pytest.mark.parametrize(("words", "error"), REFUSED.values(), ids=REFUSED)
def test_words_that_say_nothing_are_refused_in_a_line(words, error):
    with pytest.raises(InputError, match=error):
        ModuleDenoiser(Conditional(), **words)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda x: x[:, :, 1:], r"returns \(2, 2, 2, 4\) for images of \(2, 2, 3, 4\)"),
        (lambda x: {"sample": x}, "returns a dict for images"),
        (lambda x: x @ x.new_zeros(7, 7), "does not take images of"),
    ],
)
def test_what_a_module_returns_is_looked_at(returned, error):
    network = Ideal("edm")
    network.forward = lambda x, t: returned(x)
    with pytest.raises(InputError, match=error):
        ModuleDenoiser(network, "edm")(random_noise(2, 2, 3, 4), torch.tensor([0.3, 0.5], dtype=torch.float64))


def test_a_label_beyond_the_classes_is_refused():
    denoiser = ModuleDenoiser(Conditional(), "v", "cosine", num_classes=3).double()
    with pytest.raises(InputError, match="labels must lie in 0 … 2"):
        denoiser(random_noise(1, 2, 3, 3), torch.tensor([0.5], dtype=torch.float64), torch.tensor([3]))
