"""What is said before the work: the arithmetic, that it is about what then is done, and that it changes nothing."""

import math
import re

import pytest
import torch
from tiny import TRAIN, cli, network
from trainings import assert_same_training

from elslightning.cli import estimating
from elslightning.cli.estimating import Fit, estimate, fit_of, in_words
from elslightning.machines import MACHINES
from elslightning.machines.scales import ScaleTable
from elslightning.measurement.cost import Cost
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def measurement():
    """A small one of everything that a comparison can do."""
    machines = {name: MACHINES[name] for name in ("bbels", "soft_bbels", "is", "wiener")}
    calibration = CalibrationSettings(
        steps=2, patch_sizes=[3, 5], num_samples=2, gradient_samples=1, softness=[1, 2], response=[0, 1]
    )
    comparison = ComparisonSettings(
        steps=2, network_steps=[2, 3], num_pairs=3, handover=[0, 1, 5], stepwise=True, batch_size=3
    )
    return Measurement(machines, calibration, comparison)


def test_what_is_expected_is_what_then_is_done(measurement):
    told = []
    explained = network()
    expected = estimate(measurement, explained, IMAGES, None)
    with torch.no_grad():
        measurement.run(explained, IMAGES, None, explained.schedule, lambda what, done, total: told.append(what))
    assert set(expected.seconds) == set(told)
    assert all(seconds > 0 for seconds in expected.seconds.values())
    assert [phase.name for phase in expected.phases] == ["calibration", "comparison", "report"]


def test_phases_are_numbers_times_what_one_costs(measurement, monkeypatch):
    per = Cost({"calibrating bbels": 2.0}, {"bbels, 2 steps": 5.0, "network, 2 steps": 1.0}, {"receptive field": 0.5})
    monkeypatch.setattr(estimating, "cost", lambda *arguments: per)
    monkeypatch.setattr(estimating, "seconds_per_step", lambda *arguments: 3.0)
    fit = Fit(steps=10, batch_size=4, looks=2, val_images=8, comparisons=2)
    training, calibration, comparison, report = estimate(measurement, network(), IMAGES, None, fit=fit).phases
    assert training.seconds == 10 * 3 + 2 * (8 / 4) * 3 / 3
    assert calibration.seconds == 2 * (2 * 2.0 + 0.5)
    assert comparison.seconds == 2 * 3 * (5 + 1)
    assert report.seconds == estimating.DRAWN + 9 * 5 + min(9 * 5, 40 / torch.get_num_threads())
    assert training.memory <= calibration.memory == comparison.memory
    assert in_words([training, report]).startswith("about 2 min (training 34 s and ")


def test_scales_that_are_given_are_not_looked_for(measurement):
    scales = {"bbels": ScaleTable(torch.tensor([0.5], dtype=torch.float64), torch.tensor([3]))}
    given = Measurement({"bbels": MACHINES["bbels"]}, measurement.calibration, measurement.comparison, scales=scales)
    assert [phase.name for phase in estimate(given, network(), IMAGES, None, report=False).phases] == ["comparison"]
    alone = estimate(measurement, network(), IMAGES, None, compared=False, report=False)
    assert [phase.name for phase in alone.phases] == ["calibration"]


@pytest.mark.parametrize(
    ("trainer", "options", "expected"),
    [
        ({"max_epochs": 3}, {}, Fit(15, 20, 3, 7, 1)),
        ({"max_epochs": 3, "max_steps": 11}, {}, Fit(11, 20, 2, 7, 1)),
        ({"max_epochs": -1, "max_steps": 11}, {"done": 4}, Fit(7, 20, 1, 7, 1)),
        ({"max_epochs": 6, "check_val_every_n_epoch": 4}, {"every": 2}, Fit(30, 20, 1, 7, 3)),
        ({"max_epochs": 2}, {"done": 10, "every": 1}, Fit(0, 20, 0, 7, 1)),
        ({"max_epochs": -1}, {}, None),
    ],
)
def test_the_steps_ahead(trainer, options, expected):
    assert fit_of(trainer, 99, 7, 20, **options) == expected


@pytest.mark.usefixtures("no_drawing")
def test_a_run_says_it_and_is_the_same(trained_once, tmp_path, monkeypatch):
    monkeypatch.setattr(estimating, "BUSY", math.inf)  # whatever else the machine does
    words = [word for word in TRAIN if word != "estimate=false"]
    done = cli("train", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert "elslightning: about " in done.err
    for phase in ("training", "calibration", "comparison"):
        assert re.search(rf"{phase} \d+ s and \d+\.\d GiB", done.err)
    assert_same_training(tmp_path / "run", trained_once)
    done = cli("train", *words, "compare=false", f"hydra.run.dir={tmp_path / 'alone'}")
    assert re.search(r"elslightning: about \d+ s \(training \d+ s and \d+\.\d GiB\)\n", done.err)
    assert done.code == 0, done.err
    done = cli("compare", f"checkpoint={trained_once}", "report=false", f"hydra.run.dir={tmp_path / 'again'}")
    assert re.search(r"elslightning: about \d+ s \(comparison \d+ s and \d+\.\d GiB\)\n", done.err)
