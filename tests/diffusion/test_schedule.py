"""The cosine schedule: its formula, its inverse, its grid; and forward noising."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.schedule import CosineSchedule, add_noise, noise_coefficients
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def test_alpha_bar_is_the_papers_formula():
    expected = np.cos(TIMES.numpy() / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(CosineSchedule().alpha_bar(TIMES).numpy(), expected, rtol=1e-12)


def test_ends_are_those_of_the_paper():
    start, end = CosineSchedule().alpha_bar(levels(0, 1)).tolist()
    assert start == 1
    assert end == pytest.approx(1.55e-4, rel=5e-3)


def test_lowest_noise_keeps_its_digits():
    """1 - alpha_bar at t = 0.001 is 2.4e-6: in float32 it would have one digit left."""
    alpha_bar = CosineSchedule().alpha_bar(levels(0.001)).item()
    assert 1 - alpha_bar == pytest.approx(math.sin(0.001 * math.pi / 2 / 1.008) ** 2, rel=1e-9)


def test_alpha_bar_falls_with_time():
    assert (CosineSchedule().alpha_bar(TIMES).diff() < 0).all()


@pytest.mark.parametrize("stretch", [1.0008, 1.008, 1.5])
def test_time_inverts_alpha_bar(stretch):
    schedule = CosineSchedule(stretch)
    assert_close(schedule.time(schedule.alpha_bar(TIMES)), TIMES, rtol=1e-12, atol=1e-9)
    alpha_bar = schedule.alpha_bar(levels(1)) + levels(0, 0.1, 0.9) * (1 - schedule.alpha_bar(levels(1)))
    assert_close(schedule.alpha_bar(schedule.time(alpha_bar)), alpha_bar, rtol=1e-12, atol=0)


def test_results_are_float64_whatever_comes_in():
    assert CosineSchedule().alpha_bar(TIMES.float()).dtype == torch.float64
    assert CosineSchedule().time(torch.tensor([0.5])).dtype == torch.float64


def test_less_signal_than_the_schedule_has_is_later_than_its_end():
    assert CosineSchedule().time(levels(1e-6)) > 1


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_grid_runs_from_one_to_zero_in_equal_steps(steps):
    schedule = CosineSchedule()
    assert schedule.grid(steps).tolist() == [i / steps for i in range(steps, -1, -1)]
    assert torch.equal(schedule.noise_levels(steps), schedule.alpha_bar(schedule.grid(steps))[:-1])


@pytest.mark.parametrize("steps", [0, -3])
def test_grid_needs_a_step(steps):
    with pytest.raises(InputError, match=f"at least 1 step, not {steps}"):
        CosineSchedule().grid(steps)


@pytest.mark.parametrize("time", [-0.1, 1.01, float("nan")])
def test_times_outside_the_process_are_refused(time):
    with pytest.raises(InputError, match=r"times must lie in \[0, 1\]"):
        CosineSchedule().alpha_bar(levels(0.5, time))


@pytest.mark.parametrize("stretch", [-1.0, 0.5, 1.0, 1.0001, float("nan"), float("inf")])
def test_schedule_without_signal_at_its_end_is_refused(stretch):
    with pytest.raises(InputError, match=rf"stretch .* it is {stretch}"):
        CosineSchedule(stretch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noising_is_the_formula_per_image(dtype):
    x0, eps = random_images(3, 2, 4, 5), random_noise(3, 2, 4, 5)
    alpha_bar = levels(0.0, 0.36, 1.0)
    expected = torch.stack([eps[0], 0.6 * x0[1] + 0.8 * eps[1], x0[2]])
    x_t = add_noise(x0.to(dtype), eps.to(dtype), alpha_bar)
    assert x_t.dtype == dtype
    assert_close(x_t.double(), expected, rtol=1e-6, atol=1e-6)


def test_noising_keeps_unit_variance():
    x_t = add_noise(random_noise(4, 1, 64, 64), random_noise(4, 1, 64, 64, seed=9), levels(0.1, 0.5, 0.9, 0.99))
    assert_close(x_t.var(dim=(1, 2, 3)), torch.ones(4, dtype=torch.float64), rtol=0, atol=0.06)


def test_coefficients_are_rounded_once_from_float64():
    alpha_bar = levels(1 - 1e-9)
    signal, noise = noise_coefficients(alpha_bar, torch.zeros(1))
    assert noise.item() == np.float32(math.sqrt(1 - (1 - 1e-9)))
    assert signal.item() == np.float32(math.sqrt(1 - 1e-9))
    assert signal.shape == noise.shape == (1, 1, 1, 1)
