"""What calibration and comparison will cost, by a clock that goes on only with what is evaluated."""

import inspect
from functools import partial

import pytest
import torch

from elslightning.machines import MACHINES
from elslightning.measurement import cost as module
from elslightning.measurement.cost import cost
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings

CALL, IMAGE = 1.0, 2.0**-10
"""Seconds that a call takes, and every training image for every noisy one."""


class Clock:
    now = 0.0


def ticking(kind, clock, banks):
    """A kind of machine whose evaluations take a known time, and which says how many images it was given."""

    class Ticking(kind):
        def __init__(self, images, labels=None, **options):
            super().__init__(images, labels, **options)
            banks.append(len(images))

        def _tick(self, x_t, settings):
            clock.now += CALL + IMAGE * len(self.images) * len(x_t) * settings

        def forward(self, x_t, alpha_bar, labels=None):
            self._tick(x_t, 1)
            return x_t

        def sweep(self, x_t, alpha_bar, patch_sizes, labels=None):
            self._tick(x_t, len(patch_sizes))
            return x_t.expand(len(patch_sizes), *x_t.shape)

        def sweep_settings(self, x_t, alpha_bar, settings, labels=None):
            self._tick(x_t, len(settings))
            return x_t.expand(len(settings), *x_t.shape)

    Ticking.__signature__ = inspect.signature(kind)  # which says what is free in it
    return Ticking


@pytest.fixture
def costs(monkeypatch):
    """The cost of one machine over images with labels, and the banks that it was measured over."""
    clock, banks = Clock(), []
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    calibration = CalibrationSettings(
        steps=1, patch_sizes=[1, 3, 5], num_samples=8, gradient_samples=0, softness=[1, 2, 3, 4], response=[0, 1]
    )
    comparison = ComparisonSettings(steps=1, network_steps=1, num_pairs=8)

    def find(name, number=40, side=6, classes=None, **options):
        images = torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))
        labels = None if classes is None else torch.arange(number) % classes
        measurement = Measurement(
            {name: partial(ticking(MACHINES[name], clock, banks), **options)}, calibration, comparison
        )
        return cost(measurement, None, images, labels), banks

    return find


def each(number, settings=1, batch=4):
    """Seconds for a noisy image of several."""
    return CALL / batch + IMAGE * number * settings


def test_a_machine_is_measured_over_no_more_than_it_will_use(costs):
    found, banks = costs("is", 40, classes=4)
    assert banks == [10]
    assert found.comparison["is, 1 steps"] == each(10)


def test_what_is_measured_over_a_part_grows_with_the_images(costs):
    found, banks = costs("is", 96, side=32)
    assert banks == [module.PROBED]
    assert found.comparison["is, 1 steps"] == 3 * each(32)


def test_all_settings_are_counted_though_few_are_tried(costs):
    found, _ = costs("soft_bbels")
    once = each(40)
    # Three sizes with four softnesses, each of which costs three sizes more; and the other response.
    assert found.calibration["calibrating soft_bbels"] == each(40, 3) + 3 * (each(40, 6) - each(40, 3)) + once


def test_sizes_are_swept_as_they_will_be(costs):
    assert costs("bbels")[0].calibration["calibrating bbels"] == each(40, 3)


def test_what_is_quick_is_measured_with_as_many_as_there_will_be(costs, monkeypatch):
    monkeypatch.setattr(module, "QUICK", 10.0)
    assert costs("bbels")[0].comparison["bbels, 1 steps"] == each(40, batch=8)


def test_moments_are_of_the_whole_class_and_learned_once_in_every_one(costs):
    found, banks = costs("wiener", 96, side=32, classes=2)
    assert banks == [32, 48]
    once = each(48)
    learned = 2 * 2 * (CALL + IMAGE * 48)  # two evaluations of one image
    assert found.comparison["wiener, 1 steps"] == pytest.approx(once + learned / 8)


def test_what_draws_is_measured_over_more_and_grows_by_less(costs, monkeypatch):
    """The index grows with the images, and is built once for each of three sizes; what is drawn has a replica."""
    monkeypatch.setattr(module, "DRAWN", 100)
    found, banks = costs("bbels", 400, side=32, accuracy=0.1)
    assert set(banks) == {module.PROBED, 100}
    once, built = 2 * each(100), 3 * 4 * each(100, batch=1)
    assert found.comparison["bbels, 1 steps"] == pytest.approx(once + built / 8)
    assert found.comparison["bbels, replica, 1 steps"] == pytest.approx(once)
    assert found.calibration["calibrating bbels"] == pytest.approx(2 * each(100, 3))
