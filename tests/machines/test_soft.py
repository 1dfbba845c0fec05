"""Soft windows and soft responses: what they are in their limits, what reaches a pixel, and sweeps over all of it."""

import functools
import math

import pytest
import torch
from denoisers import SOFT
from reference import SOFT as PARAMETERS
from reference import posterior_mean, soft_posterior_mean
from torch.testing import assert_close

from elslightning.diffusion.schedule import add_noise
from elslightning.machines import (
    MACHINES,
    BoundaryBrokenScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    PatchMachine,
    ScaleTable,
    SoftBoundaryBrokenScoreMachine,
    SoftLocalScoreMachine,
    WienerScoreMachine,
)
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise, relative_error

ALPHA_BAR = levels(0.02, 0.5, 0.9, 0.99)
HARD = {name: name.removeprefix("soft_") for name in SOFT}
soft_machines = pytest.mark.parametrize("name", SOFT)
both_paths = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])


@pytest.fixture
def images():
    return random_images(7, 2, 5, 6)


def noisy(images):
    return add_noise(images[:4], random_noise(4, 2, 5, 6), ALPHA_BAR).float().double()


@pytest.fixture
def x_t(images):
    return noisy(images)


@functools.cache
def brute_force(name, softness, response):
    """Of these images at every level, with patches of five pixels."""
    images = random_images(7, 2, 5, 6)
    pairs = zip(noisy(images), ALPHA_BAR.tolist(), strict=True)
    return [soft_posterior_mean(name, x_t, level, images, 5, softness, response) for x_t, level in pairs]


def same(machine, other, x_t, tolerance=1e-10):
    assert_close(machine(x_t, ALPHA_BAR), other(x_t, ALPHA_BAR), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("softness", [math.inf, 1e9, None])
@soft_machines
def test_without_a_limit_to_softness_it_is_the_hard_machine(name, softness, dtype, images, x_t):
    soft = MACHINES[name](images.to(dtype), scales=5, softness=softness)
    hard = MACHINES[HARD[name]](images.to(dtype), scales=5)
    same(soft, hard, x_t.to(dtype), 1e-10 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("response", [0.8, 3.0])
@pytest.mark.parametrize("patch_size", [11, 13])
def test_local_with_a_hard_box_over_the_image_is_ideal_whatever_the_response(patch_size, response, images, x_t):
    soft = SoftLocalScoreMachine(images, scales=patch_size, response=response)
    same(soft, IdealScoreMachine(images), x_t)


@pytest.mark.parametrize("patch_size", [7, 9])
def test_boundary_broken_without_an_interior_is_local(patch_size, images, x_t):
    broken = SoftBoundaryBrokenScoreMachine(images, scales=patch_size, **PARAMETERS)
    same(broken, SoftLocalScoreMachine(images, scales=patch_size, **PARAMETERS), x_t)


@soft_machines
def test_single_pixels_have_neither_softness_nor_response(name, images, x_t):
    same(SOFT[name](images, scales=1), MACHINES[HARD[name]](images, scales=1), x_t)


@soft_machines
def test_a_vanishing_response_is_the_centre_and_a_vanishing_window_a_single_pixel(name, images, x_t):
    make = MACHINES[name]
    same(make(images, scales=3, softness=1.2, response=1e-3), make(images, scales=3, softness=1.2, response=0.0), x_t)
    if name != "soft_bbels":  # whose candidates depend on the patch size
        same(make(images, scales=3, softness=1e-3), MACHINES[HARD[name]](images, scales=1), x_t)


@soft_machines
def test_softness_and_response_matter(name, images, x_t):
    found = [MACHINES[name](images, scales=5, softness=w, response=v)(x_t, ALPHA_BAR) for w, v in CASES]
    for k, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in found[:k])


CASES = [(math.inf, 0.0), (1.2, 0.0), (math.inf, 0.8), (1.2, 0.8), (2.0, 3.0)]


@both_paths
@pytest.mark.parametrize(("softness", "response"), CASES)
@soft_machines
def test_float32_is_near_brute_force(name, softness, response, compiled, images, x_t, monkeypatch):
    monkeypatch.setattr(PatchMachine, "compiled", compiled)
    x0 = MACHINES[name](images.float(), scales=5, softness=softness, response=response)(x_t.float(), ALPHA_BAR)
    truths = brute_force(name, softness, response)
    for k in range(len(ALPHA_BAR)):
        assert_close(x0[k].double(), truths[k], rtol=0, atol=1e-5)


@both_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("response", "reach"), [(0.0, 1), (0.8, 2)])
def test_only_the_windows_of_locations_that_respond_reach_a_pixel(dtype, response, reach, compiled, monkeypatch):
    monkeypatch.setattr(PatchMachine, "compiled", compiled)
    images, row, column = random_images(5, 1, 9, 8).to(dtype), 3, 4
    x_t = random_noise(1, 1, 9, 8).to(dtype)
    rows, columns = torch.arange(9)[:, None], torch.arange(8)[None, :]
    far = torch.maximum((rows - row).abs(), (columns - column).abs())
    machine = SoftBoundaryBrokenScoreMachine(images, scales=3, softness=1.2, response=response)
    before, outside, edge = (
        machine(x_t + change, levels(0.6))[0, 0, row, column]
        for change in (0.0, (far > reach).to(dtype), (far == reach).to(dtype))
    )
    assert torch.equal(outside, before)
    assert not torch.equal(edge, before)


SETTINGS = [
    {"patch_size": 5, "softness": 1.2, "response": 0.8},
    {"patch_size": 3},
    {"softness": math.inf, "response": 0.0},
    {"patch_size": 5, "softness": 1.2, "response": 0.0},
    {"patch_size": 5, "softness": 1.2, "response": 1.5},
    {"softness": 0.7},
    {},
]


@both_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@soft_machines
def test_settings_in_one_sweep_equal_machines_of_their_own(name, dtype, compiled, images, x_t, monkeypatch):
    monkeypatch.setattr(PatchMachine, "compiled", compiled)
    images, x_t = images.to(dtype), x_t.to(dtype)
    classes, labels = torch.arange(7) % 2, torch.arange(4) % 2
    own = {"patch_size": 3, "softness": 2.0, "response": 0.5}
    machine = MACHINES[name](images, classes, scales=3, softness=2.0, response=0.5)
    found = machine.sweep_settings(x_t, ALPHA_BAR, SETTINGS, labels)
    for setting, x0 in zip(SETTINGS, found, strict=True):
        size, softness, response = (own | setting).values()
        alone = MACHINES[name](images, classes, scales=size, softness=softness, response=response)
        tolerance = 1e-10 if dtype == torch.float64 else 2e-6
        assert_close(x0, alone(x_t, ALPHA_BAR, labels), rtol=tolerance, atol=tolerance)


def test_hard_machines_sweep_over_patch_sizes_and_those_with_nothing_free_over_nothing(images, x_t):
    hard = BoundaryBrokenScoreMachine(images, scales=3)
    found = hard.sweep_settings(x_t, ALPHA_BAR, [{"patch_size": 5}, {}])
    assert torch.equal(found, hard.sweep(x_t, ALPHA_BAR, [5, 3]))
    assert (hard.free, WienerScoreMachine(images).free) == (("patch_size",), ())
    wiener = WienerScoreMachine(images)
    assert_close(wiener.sweep_settings(x_t, ALPHA_BAR, [{}, {}])[1], wiener(x_t, ALPHA_BAR))


@both_paths
@soft_machines
def test_tables_give_every_level_its_own_window_and_response(name, compiled, images, x_t, monkeypatch):
    monkeypatch.setattr(PatchMachine, "compiled", compiled)
    table = ScaleTable(ALPHA_BAR, [5, 3, 5, 3], {"softness": [2.0, math.inf, 1.2, 1.0], "response": [0.0, 0.7, 0.8, 1]})
    widths = ScaleTable(ALPHA_BAR, [1] * 4, {"softness": [0.7, 0.8, 0.9, 1.0]})
    x0 = MACHINES[name](images.float(), scales=table)(x_t.float(), ALPHA_BAR)
    mixed = MACHINES[name](images.float(), scales=table, softness=widths, response=0.5)(x_t.float(), ALPHA_BAR)
    for k, level in enumerate(ALPHA_BAR.tolist()):
        size, softness, response = (table.at(ALPHA_BAR, column)[k].item() for column in table.columns)
        truth = soft_posterior_mean(name, x_t[k], level, images, size, softness, response)
        assert_close(x0[k].double(), truth, rtol=0, atol=1e-5)
        softness = widths.at(ALPHA_BAR, "softness")[k].item()
        truth = soft_posterior_mean(name, x_t[k], level, images, size, softness, 0.5)
        assert_close(mixed[k].double(), truth, rtol=0, atol=1e-5)


def test_the_twin_without_softness_is_the_hard_twin(images, x_t):
    found = soft_posterior_mean("soft_bbels", x_t[1], 0.5, images, 3, math.inf, 0.0)
    assert_close(found, posterior_mean("bbels", x_t[1], 0.5, images, 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha_bar", [1 - 1e-9, 1 - 1e-13])
@soft_machines
def test_both_passes_see_the_same_distances_however_little_noise_there_is(name, alpha_bar):
    images = random_images(70, 1, 6, 7)
    x_t = random_noise(3, 1, 6, 7).float()
    level = torch.full((3,), alpha_bar, dtype=torch.float64)
    x0 = SOFT[name](images.float(), scales=3)(x_t, level)
    exact = SOFT[name](images, scales=3)(x_t.double(), level)
    assert float(relative_error(x0, exact).median()) <= 1e-3
    ones = SOFT[name](torch.ones_like(images).float(), scales=3)(x_t, level)
    assert_close(ones, torch.ones_like(ones), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"softness": 0.0}, "softness must be positive, or infinite for a hard box, not 0"),
        ({"softness": -1.0}, "softness must be positive, or infinite for a hard box, not -1"),
        ({"response": -0.5}, "response must be zero or positive, and finite, not -0.5"),
        ({"response": math.inf}, "response must be zero or positive, and finite, not inf"),
        ({"softness": ScaleTable([0.5], [3])}, "has no softness; it has patch_size"),
    ],
)
@soft_machines
def test_bad_widths_are_refused(name, options, complaint, images):
    with pytest.raises(InputError, match=complaint):
        MACHINES[name](images, scales=3, **options)


def test_bad_settings_are_refused(images, x_t):
    machine = SoftLocalScoreMachine(images, scales=3)
    for settings, complaint in (
        ([], "at least one setting"),
        ([{"softness": -1.0}], "softness must be positive"),
        ([{"patch_size": 4}], "odd and positive, not 4"),
        (
            [{"threshold": 0.5}],
            "threshold is not free in .*; free is patch_size, softness, response",
        ),
    ):
        with pytest.raises(InputError, match=complaint):
            machine.sweep_settings(x_t, ALPHA_BAR, settings)
    with pytest.raises(InputError, match="softness is not free in LocalScoreMachine; free is patch_size"):
        LocalScoreMachine(images, scales=3).sweep_settings(x_t, ALPHA_BAR, [{"softness": 1.0}])
