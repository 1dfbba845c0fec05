"""Calibration recovers the scales of a network that is a machine itself, and keeps its evidence."""

import contextlib

import numpy as np
import pytest
import torch
from denoisers import LOCAL

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import eps_from_x0, x0_from_eps
from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.scales import ScaleTable
from elslightning.measurement.calibration import calibrate
from elslightning.measurement.candidates import STATISTICS
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()
local_machines = pytest.mark.parametrize("name", LOCAL)


@pytest.fixture
def images():
    return random_images(8, 1, 6, 6)


@pytest.fixture
def noise():
    return random_noise(4, 1, 6, 6)


@local_machines
@pytest.mark.parametrize("objective", ["cosine", "mse"])
def test_scales_of_a_machine_in_place_of_the_network_are_recovered(name, objective, images, noise):
    scales = ScaleTable(SCHEDULE.noise_levels(4), [5, 3, 1, 3])
    network = LOCAL[name](images, scales=scales)
    calibration = calibrate(
        network,
        LOCAL[name](images, scales=1),
        SCHEDULE,
        steps=4,
        patch_sizes=[1, 3, 5],
        noise=noise,
        objective=objective,
    )
    assert torch.equal(calibration.scales.alpha_bar, scales.alpha_bar)
    assert torch.equal(calibration.scales.patch_size, scales.patch_size)


@local_machines
def test_labels_reach_network_and_machine(name, images, noise):
    classes, labels = torch.arange(8) % 2, torch.tensor([0, 1, 1, 0])
    scales = ScaleTable(SCHEDULE.noise_levels(2), [5, 3])
    calibration = calibrate(
        LOCAL[name](images, classes, scales=scales),
        LOCAL[name](images, classes, scales=1),
        SCHEDULE,
        steps=2,
        patch_sizes=[1, 3, 5],
        noise=noise,
        labels=labels,
    )
    assert calibration.scales.patch_size.tolist() == scales.patch_size.tolist()
    assert calibration.agreement.amax(dim=1).min() == pytest.approx(1, abs=1e-9)


def test_agreement_is_that_of_the_two_eps_along_the_networks_own_process(images, noise):
    network, machine = LOCAL["bbels"](images, scales=5), LOCAL["ls"](images, scales=3)
    calibration = calibrate(network, machine, SCHEDULE, steps=3, patch_sizes=[1, 3], noise=noise)
    trajectory = ddim(network, noise, SCHEDULE, 3)
    for i in range(3):
        x_t, alpha_bar = trajectory.x_t[i], trajectory.alpha_bar[i].expand(4)
        truth = network.eps(x_t, alpha_bar).flatten(1).numpy()
        for j, size in enumerate([1, 3]):
            eps = LOCAL["ls"](images, scales=size).eps(x_t, alpha_bar).flatten(1).numpy()
            cosine = (eps * truth).sum(1) / np.linalg.norm(eps, axis=1) / np.linalg.norm(truth, axis=1)
            np.testing.assert_allclose(calibration.agreement[i, j].numpy(), cosine, rtol=1e-9)
    assert torch.equal(calibration.alpha_bar, trajectory.alpha_bar[:-1])
    assert calibration.patch_sizes == (1, 3)


class Zero(Denoiser):
    """A network whose every posterior mean is 0, so that eps is x_t / sqrt(1 - alpha_bar)."""

    def forward(self, x_t, alpha_bar, labels=None):
        return torch.zeros_like(x_t)


class Scripted:
    """A machine whose eps at each patch size is what a script makes of the eps of `Zero`."""

    def __init__(self, script):
        self.script = script

    def sweep(self, x_t, alpha_bar, patch_sizes, labels=None):
        eps = eps_from_x0(x_t, torch.zeros_like(x_t), alpha_bar)
        return torch.stack([x0_from_eps(x_t, self.script(eps, size), alpha_bar) for size in patch_sizes])

    def select_labels(self, labels):
        return None

    def reporting(self, on_progress):
        return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("best", "median"), [([3, 3, 5, 7], 3), ([3, 5, 7, 7], 5), ([7, 7, 3, 3], 3), ([5, 5, 5, 7], 5), ([7, 3, 7, 7], 7)]
)
def test_scale_is_the_lower_median_over_samples(best, median, noise):
    def script(eps, size):
        right = (torch.tensor(best) == size)[:, None, None, None]
        return torch.where(right, eps, eps.roll(1, dims=3))

    calibration = calibrate(Zero(), Scripted(script), SCHEDULE, steps=2, patch_sizes=[3, 5, 7], noise=noise)
    assert calibration.scales.patch_size.tolist() == [median, median]


@pytest.mark.parametrize(
    ("best", "mode"), [([3, 3, 5, 7], 3), ([3, 5, 7, 7], 7), ([7, 7, 3, 3], 3), ([3, 5, 5, 7], 5), ([7, 5, 3, 7], 7)]
)
def test_the_mode_is_the_most_frequent_best_size_and_the_smaller_of_two(best, mode, noise):
    def script(eps, size):
        right = (torch.tensor(best) == size)[:, None, None, None]
        return torch.where(right, eps, eps.roll(1, dims=3))

    options = {"steps": 2, "patch_sizes": [3, 5, 7], "noise": noise, "statistic": "mode"}
    assert calibrate(Zero(), Scripted(script), SCHEDULE, **options).scales.patch_size.tolist() == [mode, mode]


@pytest.mark.parametrize(("statistic", "size"), [("median", 3), ("mode", 3), ("mean", 5)])
def test_the_mean_weighs_by_how_much_a_size_is_better(statistic, size, noise):
    """Size 3 is right for three samples and wrong for the last; size 5 is nearly right for all."""

    def script(eps, size):
        factor = torch.tensor([1.0, 1, 1, 3] if size == 3 else [1.1, 1.1, 1.1, 1.1])
        return factor[:, None, None, None] * eps

    options = {"steps": 1, "patch_sizes": [3, 5], "noise": noise, "objective": "mse", "statistic": statistic}
    calibration = calibrate(Zero(), Scripted(script), SCHEDULE, **options)
    assert calibration.scales.patch_size.tolist() == [size]
    assert calibration.agreement.argmax(dim=1).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_every_statistic_recovers_a_scale_that_all_samples_agree_on(statistic, images, noise):
    scales = ScaleTable(SCHEDULE.noise_levels(2), [5, 3])
    network, machine = LOCAL["bbels"](images, scales=scales), LOCAL["bbels"](images, scales=1)
    options = {"steps": 2, "patch_sizes": [1, 3, 5], "noise": noise, "statistic": statistic}
    assert calibrate(network, machine, SCHEDULE, **options).scales.to_dict() == scales.to_dict()


@pytest.mark.parametrize(("cap", "tried"), [(None, (1, 3, 5)), (99, (1, 3, 5)), (5, (1, 3, 5)), (4, (1, 3)), (1, (1,))])
def test_sizes_above_the_cap_are_left_out_and_the_rest_is_as_without(cap, tried, images, noise):
    network, machine = LOCAL["ls"](images, scales=5), LOCAL["ls"](images, scales=1)
    options = {"steps": 2, "patch_sizes": [1, 3, 5], "noise": noise}
    free = calibrate(network, machine, SCHEDULE, **options)
    calibration = calibrate(network, machine, SCHEDULE, cap=cap, **options)
    assert calibration.patch_sizes == tried
    assert torch.equal(calibration.agreement, free.agreement[:, : len(tried)])
    assert calibration.scales.patch_size.tolist() == [tried[-1]] * 2


@pytest.mark.parametrize(("objective", "size"), [("cosine", 3), ("mse", 5)])
def test_cosine_looks_at_direction_and_mse_at_distance(objective, size, noise):
    def script(eps, size):
        return 2 * eps if size == 3 else eps + 0.1 * eps.roll(1, dims=3)

    calibration = calibrate(
        Zero(), Scripted(script), SCHEDULE, steps=1, patch_sizes=[3, 5], noise=noise, objective=objective
    )
    assert calibration.scales.patch_size.tolist() == [size]
    if objective == "mse":
        eps = noise.double() / (1 - calibration.alpha_bar).sqrt()
        torch.testing.assert_close(calibration.agreement[0, 0], -eps.square().mean(dim=(1, 2, 3)))


def test_equal_agreement_goes_to_the_smallest_size(noise):
    calibration = calibrate(
        Zero(), Scripted(lambda eps, size: eps), SCHEDULE, steps=1, patch_sizes=[3, 5, 7], noise=noise
    )
    assert calibration.scales.patch_size.tolist() == [3]


def test_table_covers_the_grid_it_was_calibrated_on(images, noise):
    machine = LOCAL["ls"](images, scales=3)
    scales = calibrate(machine, machine, SCHEDULE, steps=3, patch_sizes=[1, 3], noise=noise).scales
    assert set(scales.at(SCHEDULE.noise_levels(150)).tolist()) == {3}


def test_progress_counts_steps(images, noise):
    told = []
    machine = LOCAL["ls"](images, scales=3)
    calibrate(
        machine,
        machine,
        SCHEDULE,
        steps=2,
        patch_sizes=[3],
        noise=noise,
        what="ls",
        progress=lambda *call: told.append(call),
    )
    assert {(what, total) for what, _, total in told} == {("ls", 2)}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert {1, 2} <= set(done)
    assert done[-1] == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"objective": "r2"}, "objective must be one of cosine, mse, not 'r2'"),
        ({"statistic": "max"}, "statistic must be one of median, mode, mean, not 'max'"),
        ({"cap": 2}, r"max_patch_size=2 leaves none of calibration.patch_sizes=\[3\]"),
        ({"patch_sizes": []}, r"patch_sizes must be increasing, not \[\]"),
        ({"patch_sizes": [5, 3]}, r"increasing, not \[5, 3\]"),
        ({"patch_sizes": [3, 3]}, r"increasing, not \[3, 3\]"),
        ({"patch_sizes": [3, 4]}, "odd and positive, not 4"),
        ({"patch_sizes": [-1, 3]}, "odd and positive, not -1"),
        ({"steps": 0}, "at least 1 step, not 0"),
        ({"noise": random_noise(2, 1, 5, 6)}, "not 1 x 5 x 6"),
    ],
)
def test_bad_input_is_refused(images, noise, options, complaint):
    machine = LOCAL["ls"](images, scales=3)
    with pytest.raises(InputError, match=complaint):
        calibrate(machine, machine, SCHEDULE, **({"steps": 2, "patch_sizes": [3], "noise": noise} | options))


def test_patch_size_that_wraps_too_often_is_refused(images, noise):
    machine = LOCAL["els"](images, scales=3)
    with pytest.raises(InputError, match="patch size 7 is too large"):
        calibrate(machine, machine, SCHEDULE, steps=1, patch_sizes=[3, 7], noise=noise)
