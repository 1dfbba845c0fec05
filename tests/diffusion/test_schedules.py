"""The schedules that networks elsewhere are trained on: their published levels, their inverses, their grids."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import LEAST_TIME
from elslightning.diffusion.schedules import SCHEDULES, EDMSchedule, FlowSchedule, LinearSchedule
from elslightning.diffusion.schedules.sigmoid import SigmoidSchedule
from elslightning.diffusion.schedules.squared_cosine import SquaredCosineSchedule
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_noise

TIMES = torch.linspace(0, 1, 2001, dtype=torch.float64)
DISCRETE = ["linear", "squaredcos", "sigmoid"]


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]()


def chain(betas: np.ndarray) -> np.ndarray:
    """alpha_bar of every level, by the definition."""
    products, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return np.array(products)


def squared_cosine() -> np.ndarray:
    def power(i: int) -> float:
        return np.cos((i / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    return np.array([min(1 - power(i + 1) / power(i), 0.999) for i in range(1000)])


def sigmoid() -> np.ndarray:
    def power(i: int) -> float:
        low, here, high = (1 / (1 + np.exp(-x)) for x in (-3, -3 + 6 * i / 1000, 3))
        return (high - here) / (high - low)

    return np.array([min(1 - power(i + 1) / power(i), 0.999) for i in range(1000)])


BETAS = {
    "linear": np.array([1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]),
    "squaredcos": squared_cosine(),
    "sigmoid": sigmoid(),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_the_times_of_levels_have_the_levels_of_the_chain(name):
    schedule, expected = SCHEDULES[name](), chain(BETAS[name])
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    np.testing.assert_allclose(schedule.alpha_bar(t).numpy(), expected, rtol=1e-10)
    assert_close(schedule.time(torch.from_numpy(expected)), t, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "time", "alpha_bar"),
    [("linear", 1.0, 4.04e-5), ("squaredcos", 0.999, 2.43e-6), ("squaredcos", 1.0, 2.43e-9), ("cosine", 1.0, 1.55e-4)],
)
def test_the_last_levels_are_those_that_are_known(name, time, alpha_bar):
    assert float(SCHEDULES[name]().alpha_bar(levels(time))) == pytest.approx(alpha_bar, rel=5e-3)


@pytest.mark.parametrize("name", DISCRETE)
def test_between_levels_log_snr_is_a_straight_line(name):
    schedule = SCHEDULES[name]()
    left, middle, right = schedule.alpha_bar(levels(0.25, 0.2503, 0.251)).logit()
    assert_close(middle, 0.7 * left + 0.3 * right, rtol=1e-9, atol=0)


def test_edm_has_its_own_sigmas():
    for steps in (2, 18):
        root = [(80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(steps)]
        expected = 1 / (1 + np.array(root) ** 2)
        np.testing.assert_allclose(EDMSchedule().noise_levels(steps).numpy(), expected, rtol=1e-10)


def test_flow_has_straight_paths():
    signal, noise = (part.sqrt() for part in (lambda a: (a, 1 - a))(FlowSchedule(end=0.9).alpha_bar(TIMES)))
    assert_close(noise / (signal + noise), 0.9 * TIMES, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_can_be_made_where_the_default_device_holds_no_numbers(name):
    """Networks are first built without memory for their weights, and their schedule with them."""
    with torch.device("meta"):
        schedule = SCHEDULES[name]()
    assert_close(schedule.alpha_bar(TIMES), SCHEDULES[name]().alpha_bar(TIMES), rtol=0, atol=0)


def test_signal_falls_from_one_and_never_to_zero(schedule):
    alpha_bar = schedule.alpha_bar(TIMES)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert 0 < alpha_bar[-1] < 1e-3
    assert alpha_bar.dtype == schedule.alpha_bar(TIMES.float()).dtype == torch.float64
    assert schedule.alpha_bar(levels(LEAST_TIME)) < 1


def test_time_and_alpha_bar_are_inverses(schedule):
    alpha_bar = schedule.alpha_bar(TIMES)
    assert_close(schedule.time(alpha_bar), TIMES, rtol=1e-9, atol=1e-9)
    between = (alpha_bar[1:] + alpha_bar[:-1]) / 2
    assert_close(schedule.alpha_bar(schedule.time(between)), between, rtol=1e-9, atol=0)
    assert schedule.time(schedule.alpha_bar(levels(1)) / 2) > 1


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 150])
def test_a_grid_falls_from_one_to_zero_in_so_many_steps(schedule, steps):
    grid = schedule.grid(steps)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (1, 0)
    assert (grid.diff() < 0).all()
    assert torch.equal(schedule.noise_levels(steps), schedule.alpha_bar(grid[:-1]))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_needs_a_step(schedule, steps):
    with pytest.raises(InputError, match=f"at least 1 step, not {steps}"):
        schedule.grid(steps)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_grid_of_levels_is_made_of_levels(name):
    schedule = SCHEDULES[name]()
    expected = chain(BETAS[name])
    position = np.round(np.arange(150, 0, -1) / 150 * 1000).astype(int) - 1
    np.testing.assert_allclose(schedule.noise_levels(150).numpy(), expected[position], rtol=1e-10)
    with pytest.raises(InputError, match="a schedule of 1000 levels has no reverse process of 1001 steps"):
        schedule.grid(1001)


class Gaussian(Denoiser):
    """The posterior mean of independent pixels of a given mean and variance."""

    mean, variance = 0.3, 0.25

    def forward(self, x_t, alpha_bar, labels=None):
        alpha_bar = alpha_bar[:, None, None, None]
        gain = alpha_bar.sqrt() * self.variance / (alpha_bar * self.variance + 1 - alpha_bar)
        return self.mean + gain * (x_t - alpha_bar.sqrt() * self.mean)


def test_gaussian_samples_converge_to_the_exact_flow_on_every_schedule(schedule):
    noise = random_noise(5, 1, 4, 4)
    start = schedule.alpha_bar(levels(1.0)).item()
    spread = (start * Gaussian.variance + 1 - start) ** 0.5
    exact = Gaussian.mean + Gaussian.variance**0.5 * (noise - start**0.5 * Gaussian.mean) / spread
    coarse, fine = (ddim(Gaussian(), noise, schedule, steps).samples - exact for steps in (125, 250))
    assert fine.abs().max() < 0.02
    assert fine.abs().max() / coarse.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: LinearSchedule(beta_start=0), "schedule.beta_start must be a number between 0 and 1, not 0"),
        (lambda: LinearSchedule(beta_end=0.5), "to end above 1e-12"),
        (lambda: LinearSchedule(levels=1), "schedule.levels must be a whole number, at least 2, not 1"),
        (lambda: SquaredCosineSchedule(levels=10**6), "schedule.levels must be at most 100000"),
        (lambda: SigmoidSchedule(start=3, end=-3), "schedule.start must be less than schedule.end, -3, not 3"),
        (lambda: SigmoidSchedule(tau=0.001), "alpha_bar to fall from level to level"),
        (lambda: EDMSchedule(sigma_min=90), "schedule.sigma_min must be less than schedule.sigma_max"),
        (lambda: EDMSchedule(rho=float("nan")), "schedule.rho must be a number between 0 and 100, not nan"),
        (lambda: FlowSchedule(end=1.0), "schedule.end must be a number between 0.5 and 1, not 1.0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make, complaint):
    with pytest.raises(InputError, match=complaint):
        make()
