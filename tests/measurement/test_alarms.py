"""What turns the headline of a result over is said before it."""

import pytest

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.registry import MACHINES
from elslightning.measurement.alarms import FEWEST_LOSSES, alarms, falling
from elslightning.measurement.comparing import compare
from elslightning.measurement.doubts import doubts
from elslightning.measurement.result import Result
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()


def summary(r=0.9, r2_score=0.8, outside=0.0, machine="bbels"):
    medians = {"pearson_r": {"median": r}, "r2_score": {"median": r2_score}}
    return {"machines": {machine: {"20": medians}}, "network": {"20": {"outside": outside, "memorised": 0.0}}}


def losses(values, name="val/loss"):
    return {name: [(step, value) for step, value in enumerate(values)]}


FLAT, STEEP = [0.1] * 40, [0.99**step for step in range(40)]


def test_a_good_result_has_none():
    assert alarms(summary(), losses(FLAT)) == []
    assert alarms({}, {}) == []


@pytest.mark.parametrize(("outside", "said"), [(0.05, False), (0.06, True), (0.84, True)])
def test_samples_that_are_no_images_are_said_first(outside, said):
    found = alarms(summary(r2_score=-0.1, outside=outside), losses(STEEP))
    assert found[0].startswith("Not images: ") == said
    assert not said or f"{outside:.0%} of the values" in found[0]
    assert [line.split(":")[0] for line in found][-2:] == ["Negative R²", "Not converged"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"r": 0.7, "r2_score": -0.11}, True),
        ({"r": 0.7, "r2_score": 0.01}, False),
        ({"r": 0.2, "r2_score": -0.11}, False),
        ({"r": 0.7, "r2_score": -0.11, "machine": "mean"}, False),
    ],
    ids=str,
)
def test_a_high_r_with_a_negative_r2_score_is_said(entry, said):
    found = alarms(summary(**entry), {})
    assert len(found) == said
    assert all("bbELS (r 0.70, R² -0.11)" in line for line in found)


def test_convergence_is_judged_by_validations_then_by_the_training_loss():
    few = FLAT[: FEWEST_LOSSES - 1]
    assert alarms({}, losses(FLAT) | losses(STEEP, "train/loss")) == []
    (line,) = alarms({}, losses(STEEP))
    assert line.startswith("Not converged: val/loss still fell by ")
    (line,) = alarms({}, losses(few) | losses(STEEP, "train/loss"))
    assert line.startswith("Not converged: train/loss still fell by ")
    assert alarms({}, losses(few) | losses(FLAT, "train/loss")) == []


def test_that_convergence_cannot_be_judged_is_said_unless_nothing_is_known():
    (line,) = alarms({}, losses(FLAT[:3]) | losses(FLAT[:2], "train/loss"))
    assert line.startswith("Whether the network has converged cannot be judged")
    assert "3 of val/loss, 2 of train/loss" in line


def test_fall_of_a_loss():
    assert falling([1.0] * 5) is None
    assert falling(STEEP) == pytest.approx(1 - 0.99**4, abs=0.02)


class Barely(Denoiser):
    """A network that was trained for few steps: its samples keep a pattern, and leave the range of images."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine

    def forward(self, x_t, alpha_bar, labels=None):
        return 4 * self.machine(x_t, alpha_bar, labels) + 2


def test_a_network_whose_samples_leave_the_range_gets_that_as_its_headline():
    images = random_images(8, 1, 5, 5).float()
    machines = {name: MACHINES[name](images, **({"scales": 3} if name == "ls" else {})) for name in ("ls", "is")}
    noise = random_noise(4, 1, 5, 5).float()
    found = compare(Barely(machines["ls"]), machines, SCHEDULE, steps=3, network_steps=3, noise=noise, bank=images)
    share = found.summary()["network"]["3"]["outside"]
    assert share == pytest.approx((found.network[3].abs() > 1.05).double().mean().item())
    assert share > 0.5
    result = Result({}, {}, found)
    first = f"Not images: {share:.0%} of the values of the network's samples (3 steps) lie outside of [-1, 1]"
    assert doubts(result)[0].startswith(first)
    assert result.text().strip().startswith(first)
    assert result.text().index(first) < result.text().index("median r")
