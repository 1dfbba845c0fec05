"""Replicas: their errors are told by their difference, and r is corrected for them."""

import torch

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import MACHINES, approximate
from elslightning.measurement.agreement import agreement
from elslightning.measurement.comparing import compare
from elslightning.measurement.doubts import doubts
from elslightning.measurement.replicas import against
from elslightning.measurement.result import Result
from elslightning.testing import random_images


def test_two_samples_tell_their_error_and_the_r_that_it_takes():
    generator = torch.Generator().manual_seed(0)
    exact, network, *errors = torch.randn(4, 50, 1, 30, 30, generator=generator).double()
    network = exact + 0.5 * network
    one, other = (exact + 0.6 * error for error in errors)
    found = against(one, other, agreement(one, network)["pearson_r"])
    assert abs(float(found["sample_error"].mean()) - 0.6) < 0.01
    assert abs(float(found["replica_r"].mean()) - 1 / 1.36) < 0.01
    truth = agreement(exact, network)["pearson_r"].mean()
    assert agreement(one, network)["pearson_r"].mean() < truth - 0.1
    assert abs(float(found["corrected_r"].mean() - truth)) < 0.01


def test_a_comparison_samples_machines_that_draw_twice(monkeypatch):
    for name, value in (("ALL", 0), ("EXHAUSTED", 0), ("FIRST", 64), ("MOST", 64)):
        monkeypatch.setattr(approximate, name, value)
    images, noise = (
        random_images(30, 1, 6, 6).float(),
        torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)),
    )
    machines = {
        "bbels": MACHINES["bbels"](images, scales=3, accuracy=0.02),
        "els": MACHINES["els"](images, scales=3),
    }
    found = compare(MACHINES["is"](images), machines, CosineSchedule(), steps=3, network_steps=3, noise=noise)
    assert list(found.replicas) == ["bbels"]
    drawn, exact = (found.summary()["machines"][name]["3"] for name in machines)
    assert drawn["sample_error"]["median"] > 0
    assert drawn["replica_r"]["median"] < 1
    assert drawn["corrected_r"]["median"] >= drawn["pearson_r"]["median"]
    assert "corrected_r" not in exact
    assert "r of replicas" in found.table()
    assert any("Errors that cannot be trusted: bbELS" in line for line in doubts(Result({}, {}, comparison=found)))
