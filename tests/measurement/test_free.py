"""Calibration of whatever is free: softness, response, threshold, temperature, beside the patch size or without one."""

import math
from functools import partial

import pytest
import torch
from tiny import digits

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import MACHINES
from elslightning.machines.scales import ScaleTable
from elslightning.measurement.calibration import calibrate
from elslightning.measurement.candidates import chosen, grid
from elslightning.measurement.doubts import doubts
from elslightning.measurement.heldout import heldout
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.runs.run import read_run
from elslightning.runs.writing import write
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()
SOFTNESS, RESPONSE = [1.0, math.inf], [0.0, 1.0]


@pytest.fixture
def images():
    return random_images(8, 1, 5, 5)


@pytest.fixture
def noise():
    return random_noise(3, 1, 5, 5)


def test_a_soft_machine_in_place_of_the_network_is_recovered(images, noise):
    levels = SCHEDULE.noise_levels(3)
    truth = ScaleTable(levels, [3, 5, 3], {"softness": [1.0, math.inf, 1.0], "response": [0.0, 1.0, 1.0]})
    found = calibrate(
        MACHINES["soft_bbels"](images, scales=truth),
        MACHINES["soft_bbels"](images, scales=1),
        SCHEDULE,
        steps=3,
        patch_sizes=[3, 5],
        further={"softness": SOFTNESS, "response": RESPONSE},
        noise=noise,
    )
    assert found.scales.to_dict() == truth.to_dict()
    assert isinstance(found.scales, ScaleTable)
    assert found.patch_sizes == (3, 5)
    assert found.agreement.nan_to_num(-1).amax(dim=1).min() == pytest.approx(1, abs=1e-9)


def test_responses_are_tried_with_the_best_of_the_others_only(images, noise):
    network, machine = (MACHINES["soft_ls"](images, scales=size, softness=1.0) for size in (5, 1))
    candidates = {"softness": SOFTNESS, "response": [0.0, 1.0, 2.0]}
    options = {"steps": 2, "patch_sizes": [3, 5], "noise": noise}
    found = calibrate(network, machine, SCHEDULE, further=candidates, **options)
    for step in found.agreement:
        tried = [s for s, values in zip(found.settings, step, strict=True) if not values.isnan().any()]
        assert len(tried) == 4 + 2
        best = {(s["patch_size"], s["softness"]) for s in tried if s["response"] > 0}
        assert best == {(5, 1.0)}
    hard = calibrate(network, machine, SCHEDULE, further={"softness": SOFTNESS}, **options)
    assert found.scales.columns["softness"].tolist() == hard.scales.columns["softness"].tolist() == [1.0, 1.0]
    assert found.scales.columns["response"].tolist() == [0.0, 0.0]


def test_the_evidence_of_a_patch_size_is_that_with_the_best_others(images, noise):
    network, machine = (MACHINES["soft_ls"](images, scales=size, softness=1.0) for size in (5, 1))
    options = {"steps": 2, "noise": noise, "further": {"softness": SOFTNESS}}
    found = calibrate(network, machine, SCHEDULE, patch_sizes=[3, 5], **options)
    for place, size in enumerate((3, 5)):
        alone = calibrate(network, machine, SCHEDULE, patch_sizes=[size], **options)
        best = alone.agreement.quantile(0.5, dim=2).amax(dim=1)
        torch.testing.assert_close(found.of_sizes[:, place].quantile(0.5, dim=1), best)


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [("pca", "threshold", [0.0, 0.2, 0.6]), ("is_tempered", "temperature", [0.5, 1.0, 4.0])],
)
def test_a_parameter_of_a_machine_without_patches_is_recovered(name, parameter, values, images, noise):
    truth = ParameterTable(SCHEDULE.noise_levels(2), {parameter: [values[1], values[2]]})
    network, machine = (MACHINES[name](images, **{parameter: given}) for given in (truth, values[0]))
    options = {"steps": 2, "patch_sizes": None, "further": {parameter: values}}
    found = calibrate(network, machine, SCHEDULE, noise=noise, **options)
    assert found.scales.to_dict() == truth.to_dict()
    assert found.patch_sizes == ()
    alone = heldout(machine, SCHEDULE, images=images[:3].flip(3), noise=noise, **options)
    assert set(alone.scales.columns) == {parameter}


@pytest.mark.parametrize(("statistic", "place"), [("median", 1), ("mean", 2), ("mode", 0)])
def test_values_that_belong_together_are_chosen_by_their_agreement(statistic, place):
    """The first is best for two samples and wrong for the rest, the second nearly right for three, the last for all."""
    agreement = torch.tensor([[1.0, 1, 0, 0, 0], [0.9, 0.9, 0.9, 0, 0], [0.7, 0.7, 0.7, 0.7, 0.7]])
    settings = grid({"patch_size": [3], "softness": [1.0, 2.0, 3.0]})
    assert chosen(agreement, settings, statistic) == place


def test_nothing_to_try_and_values_out_of_order_are_refused(images, noise):
    machine = MACHINES["pca"](images, threshold=0.1)
    options = {"steps": 1, "patch_sizes": None, "noise": noise}
    with pytest.raises(InputError, match="calibration needs patch sizes, or values of another parameter"):
        calibrate(machine, machine, SCHEDULE, **options)
    with pytest.raises(InputError, match=r"calibration.threshold must be increasing, not \[0.5, 0.1\]"):
        calibrate(machine, machine, SCHEDULE, further={"threshold": [0.5, 0.1]}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softness": []}, r"calibration.softness must be increasing numbers, not \[\]"),
        ({"softness": [2, 1]}, r"calibration.softness must be increasing numbers, not \[2, 1\]"),
        ({"softness": [None, 1]}, r"calibration.softness must be increasing numbers, not \[None, 1\]"),
        ({"softness": [0, 1]}, "calibration.softness must be positive, or infinite for a hard box, not 0"),
        ({"threshold": [0.5, 2]}, "calibration.threshold must be from 0 to 1, not 2"),
    ],
    ids=str,
)
def test_candidates_that_cannot_be_tried_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CalibrationSettings(**options)


@pytest.fixture(scope="module")
def bank():
    return digits(train_size=20).train_images


FACTORIES = {
    "soft_ls": MACHINES["soft_ls"],
    "fixed": partial(MACHINES["soft_ls"], softness=2.0, response=None),
    "pca": partial(MACHINES["pca"], threshold=None),
    "given": partial(MACHINES["pca"], threshold=0.3),
}


def measurement(**options) -> Measurement:
    settings = {"steps": 2, "patch_sizes": (5,), "num_samples": 2, "gradient_samples": 0}
    settings |= {"softness": SOFTNESS, "response": RESPONSE, "threshold": [0.0, 0.5]}
    comparison = ComparisonSettings(steps=2, network_steps=2, num_pairs=2)
    parts = {"machines": FACTORIES, "calibration": CalibrationSettings(**settings), "comparison": comparison}
    return Measurement(**(parts | options))


def test_what_a_machine_was_given_stays_and_the_rest_is_calibrated_and_read_again(bank, tmp_path):
    network = MACHINES["soft_ls"](bank, scales=5, softness=1.0, response=1.0)
    result = measurement().run(network, bank, None, SCHEDULE)
    free = {name: list(table.columns) for name, table in result.scales.items()}
    assert free == {
        "soft_ls": ["patch_size", "softness", "response"],
        "fixed": ["patch_size", "response"],
        "pca": ["threshold"],
    }
    # At pure noise float32 cannot tell the settings apart; at the next level it can.
    found = {name: column.tolist()[0] for name, column in result.scales["soft_ls"].columns.items()}
    assert found == {"patch_size": 5, "softness": 1.0, "response": 1.0}
    said = "Response at the edge: soft LS takes the greatest response tried, 1, at "
    assert any(line.startswith(said) for line in doubts(result))
    write(result, tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("verb: train\n")
    again = read_run(tmp_path).result
    for name, found in result.calibrations.items():
        assert again.calibrations[name].settings == found.settings
        torch.testing.assert_close(again.calibrations[name].agreement, found.agreement.double(), equal_nan=True)
    given = measurement(scales=again.scales).run(network, bank, None, SCHEDULE)
    for name in FACTORIES:
        torch.testing.assert_close(given.comparison.machines[name], result.comparison.machines[name])
