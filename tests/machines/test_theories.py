"""The theories that stand beside the patch machines: what each equals at the ends of its parameter, and its options."""

import pytest
import reference
import torch
from reference import pca_posterior_mean, some_crops, square_crops
from torch.testing import assert_close

from elslightning.diffusion.schedule import add_noise
from elslightning.machines import (
    FlexibleCropScoreMachine,
    IdealScoreMachine,
    LocalScoreMachine,
    MeanScoreMachine,
    PCALocalityScoreMachine,
    SmoothedScoreMachine,
    SquareCropScoreMachine,
    TemperedScoreMachine,
)
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.pspc_flex import crops_of_share
from elslightning.machines.remembering import Remembering, remembering
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError
from elslightning.system.tensorfiles import write_tensors
from elslightning.testing import levels, random_images, random_noise

ALPHA_BAR = levels(1e-4, 0.1, 0.5, 0.9, 0.9999)
SHAPE = (2, 5, 5)


@pytest.fixture
def images():
    return random_images(6, *SHAPE)


@pytest.fixture
def x_t():
    clean = random_images(len(ALPHA_BAR), *SHAPE, seed=3)
    return add_noise(clean, random_noise(*clean.shape), ALPHA_BAR)


ALL = torch.ones(3, 5, 5, dtype=torch.bool)
# Machines that are the ideal one.
IDEAL = {
    "temperature 1": (TemperedScoreMachine, {"temperature": 1.0}),
    "no smoothing": (SmoothedScoreMachine, {"smoothing": 0.0, "draws": 2}),
    "threshold 0": (PCALocalityScoreMachine, {"threshold": 0.0}),
    "threshold 0, one batch": (PCALocalityScoreMachine, {"threshold": 0.0, "batch": 6}),
    "squares of the image": (SquareCropScoreMachine, {"scales": 5}),
    "whole crops": (FlexibleCropScoreMachine, {"crops": ALL}),
}
# And what takes each away from it.
OTHER = {
    "temperature 1": {"temperature": 3.0},
    "no smoothing": {"smoothing": 0.8, "draws": 2},
    "threshold 0": {"threshold": 0.5},
    "threshold 0, one batch": {"threshold": 0.0, "batch": 2},
    "squares of the image": {"scales": 4},
    "whole crops": {"crops": some_crops(5, 5)},
}


@pytest.mark.parametrize("name", IDEAL)
def test_at_one_end_of_its_parameter_each_is_the_ideal_machine(name, images, x_t):
    kind, options = IDEAL[name]
    ideal = IdealScoreMachine(images)(x_t, ALPHA_BAR)
    assert_close(kind(images, **options)(x_t, ALPHA_BAR), ideal, rtol=0, atol=1e-9)
    assert not torch.allclose(kind(images, **OTHER[name])(x_t, ALPHA_BAR), ideal, atol=1e-2)


def test_kept_results_of_different_options_are_not_mixed_up(images):
    machines = [
        *(SmoothedScoreMachine(images, smoothing=0.5, **options) for options in ({}, {"draws": 2}, {"seed": 1})),
        SmoothedScoreMachine(images, smoothing=0.6),
        *(PCALocalityScoreMachine(images, threshold=0.5, batch=batch) for batch in (None, 2)),
        PCALocalityScoreMachine(images, threshold=ParameterTable([0.5], {"threshold": [0.5]})),
        *(TemperedScoreMachine(images, temperature=temperature) for temperature in (1, 2.0)),
        *(FlexibleCropScoreMachine(images, crops=crops) for crops in (ALL, some_crops(5, 5))),
    ]
    assert len({Remembering(machine, lambda parts, make: make())._identity for machine in machines}) == len(machines)


# Temperature ----------------------------------------------------------------------------------------------


def test_heat_blends_all_images_and_cold_takes_the_nearest(images, x_t):
    hot = TemperedScoreMachine(images, temperature=1e6)(x_t[:4], ALPHA_BAR[:4])
    assert_close(hot, MeanScoreMachine(images)(x_t[:4], ALPHA_BAR[:4]), rtol=0, atol=1e-3)
    cold = TemperedScoreMachine(images, temperature=1e-6)(x_t, ALPHA_BAR)
    distance = (x_t[:, None] - ALPHA_BAR.sqrt()[:, None, None, None, None] * images).flatten(2).norm(dim=2)
    assert_close(cold, images[distance.argmin(dim=1)], rtol=0, atol=1e-12)


def test_every_noise_level_has_its_parameter(images, x_t):
    table = ParameterTable(ALPHA_BAR.tolist(), {"temperature": [1.0, 2.0, 3.0, 4.0, 5.0]})
    whole = TemperedScoreMachine(images, temperature=table)(x_t, ALPHA_BAR)
    for index in range(5):
        one = slice(index, index + 1)
        alone = TemperedScoreMachine(images, temperature=index + 1.0)(x_t[one], ALPHA_BAR[one])
        assert_close(whole[one], alone, rtol=0, atol=1e-12)


# Smoothing ------------------------------------------------------------------------------------------------


def test_draws_are_seeded_and_the_same_for_all(images, x_t):
    machine = SmoothedScoreMachine(images, smoothing=0.7, draws=4)
    found = machine(x_t, ALPHA_BAR)
    torch.manual_seed(17)
    assert torch.equal(SmoothedScoreMachine(images, smoothing=0.7, draws=4)(x_t, ALPHA_BAR), found)
    back = torch.tensor([3, 1])
    assert_close(machine(x_t[back], ALPHA_BAR[back]), found[back], rtol=0, atol=1e-12)
    other = SmoothedScoreMachine(images, smoothing=0.7, draws=4, seed=1)(x_t, ALPHA_BAR)
    assert not torch.allclose(other, found, atol=1e-3)


def test_more_draws_come_nearer_to_the_smoothed_machine(images, x_t):
    middle = slice(1, 3)

    def found(draws, seed):
        machine = SmoothedScoreMachine(images, smoothing=0.7, draws=draws, seed=seed)
        return machine(x_t[middle], ALPHA_BAR[middle])

    few, many = ((found(draws, 1) - found(draws, 2)).square().mean() for draws in (10, 1000))
    assert float(many) < float(few) / 20


# PCA ------------------------------------------------------------------------------------------------------


def test_independent_coordinates_take_their_own_nearest_value():
    values = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    images = torch.cartesian_prod(*[values] * 4).reshape(16, 1, 2, 2)  # every combination: no covariance
    x_t = random_noise(3, 1, 2, 2)
    found = PCALocalityScoreMachine(images, threshold=0.5)(x_t, levels(0.999, 0.999, 0.999))
    assert_close(found, x_t.sign(), rtol=0, atol=1e-9)


def test_windows_follow_the_covariance():
    shared = random_noise(40, 1)
    images = torch.cat([shared, shared, random_noise(40, 2, seed=7)], dim=1).clamp(-3, 3).reshape(40, 1, 2, 2) / 3
    machine = PCALocalityScoreMachine(images, threshold=0.6)
    before, x_t = None, random_noise(1, 1, 2, 2)
    for moved, seen in (((0, 1), True), ((1, 0), False), ((1, 1), False)):
        before = machine(x_t, levels(0.8))
        other = x_t.clone()
        other[0, 0, moved[0], moved[1]] += 1
        assert bool((machine(other, levels(0.8)) - before)[0, 0, 0, 0].abs() > 1e-6) is seen


@pytest.mark.parametrize("batch", [1, 4, 6, 100])
@pytest.mark.parametrize("budget", [None, 130_000])
def test_batches_are_averaged(batch, budget, images, x_t):
    machine = PCALocalityScoreMachine(images, threshold=0.4, batch=batch, memory_budget=budget)
    found = machine(x_t, ALPHA_BAR)
    for x, a, x0 in zip(x_t, ALPHA_BAR.tolist(), found, strict=True):
        # The windows are those of all images.
        estimates = [windowed(x, a, part, images) for part in images.split(batch)]
        assert_close(x0, torch.stack(estimates).mean(dim=0), rtol=0, atol=1e-9)


def windowed(x, alpha_bar, part, images):
    """`pca` over a part of the images, with the windows of all."""
    with pytest.MonkeyPatch.context() as patch:
        matrix = reference.wiener_matrix(alpha_bar, images)
        patch.setattr(reference, "wiener_matrix", lambda *_: matrix)
        return pca_posterior_mean(x, alpha_bar, part, 0.4)


# Crops ----------------------------------------------------------------------------------------------------


def test_single_pixels_are_the_local_machine(images, x_t):
    local = LocalScoreMachine(images, scales=1)(x_t, ALPHA_BAR)
    assert_close(SquareCropScoreMachine(images, scales=1)(x_t, ALPHA_BAR), local, rtol=0, atol=1e-10)
    nothing = torch.zeros(1, 5, 5, dtype=torch.bool)
    assert_close(FlexibleCropScoreMachine(images, crops=nothing)(x_t, ALPHA_BAR), local, rtol=0, atol=1e-10)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_squares_are_crops_of_that_shape(side, images, x_t):
    crops = square_crops(side, 5, 5)
    flexible = FlexibleCropScoreMachine(images, crops=crops)(x_t, ALPHA_BAR)
    assert_close(SquareCropScoreMachine(images, scales=side)(x_t, ALPHA_BAR), flexible, rtol=0, atol=1e-10)
    order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))
    again = FlexibleCropScoreMachine(images, crops=crops[order].repeat(2, 1, 1))(x_t, ALPHA_BAR)
    assert_close(again, flexible, rtol=0, atol=1e-10)


def test_a_sweep_is_each_side_in_turn_and_tables_say_which(images, x_t):
    sweep = SquareCropScoreMachine(images, scales=3).sweep(x_t, ALPHA_BAR, [1, 2, 5])
    for side, x0 in zip([1, 2, 5], sweep, strict=True):
        assert torch.equal(x0, SquareCropScoreMachine(images, scales=side)(x_t, ALPHA_BAR))
    odd = ScaleTable([0.9, 0.1], [1, 5])
    even = ParameterTable([0.9, 0.1], {"side": [1, 2]})
    for table, noisy in ((odd, 2), (even, 1)):
        found = SquareCropScoreMachine(images, scales=table)(x_t, ALPHA_BAR.clamp(0.05, 0.9))
        levels_ = ALPHA_BAR.clamp(0.05, 0.9)
        sides = SquareCropScoreMachine(images, scales=3).sweep(x_t, levels_, [1, 2, 5])
        assert_close(found, torch.cat([sides[noisy, :2], found[2:3], sides[0, 3:]]), rtol=0, atol=1e-12)


def test_every_noise_level_has_its_crops(images, x_t, tmp_path):
    crops = torch.stack([torch.ones(25, 5, 5, dtype=torch.bool), square_crops(1, 5, 5)])
    machine = FlexibleCropScoreMachine(images, crops=crops, alpha_bar=[0.1, 0.9])
    write_tensors(tmp_path / "crops.safetensors", {"crops": crops, "alpha_bar": levels(0.1, 0.9)}, {})
    read = FlexibleCropScoreMachine(images, crops=tmp_path / "crops.safetensors")
    inside = ALPHA_BAR.clamp(0.05, 0.95)
    found = machine(x_t, inside)
    assert torch.equal(read(x_t, inside), found)
    assert_close(found[:2], IdealScoreMachine(images)(x_t[:2], inside[:2]), rtol=0, atol=1e-10)
    assert_close(found[3:], LocalScoreMachine(images, scales=1)(x_t[3:], inside[3:]), rtol=0, atol=1e-10)


def test_crops_take_the_most_influential_pixels_first():
    influence = torch.tensor([[1.0, 4.0], [2.0, 3.0]])
    shares = {0.01: 1, 0.4: 1, 0.41: 2, 0.7: 2, 0.71: 3, 0.95: 4, 1.0: 4}
    for share, count in shares.items():
        crop = crops_of_share(influence, share)
        assert int(crop.sum()) == count
        assert float(influence[crop].min()) >= float(torch.cat([influence[~crop], torch.zeros(1)]).max())
    assert crops_of_share(torch.tensor([[1.0, 0.0]]), 1.0).all()


def test_squares_that_remember_can_be_swept(images, x_t):
    machine = SquareCropScoreMachine(images, scales=3)
    found = remembering(machine, lambda parts, make: make()).sweep(x_t, ALPHA_BAR, [1, 3])
    assert torch.equal(found, machine.sweep(x_t, ALPHA_BAR, [1, 3]))


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        (TemperedScoreMachine, {"temperature": 0.0}, "temperature must be from 1e-6 to 1e6, not 0"),
        (TemperedScoreMachine, {"temperature": float("nan")}, "temperature must be from 1e-6 to 1e6, not nan"),
        (SmoothedScoreMachine, {"smoothing": -1.0}, "smoothing must be from 0 to 1e6, not -1"),
        (SmoothedScoreMachine, {"smoothing": 1.0, "draws": 0}, "draws must be a whole number, at least 1, not 0"),
        (SmoothedScoreMachine, {"smoothing": 1.0, "seed": -1}, "seed must be a whole number, at least 0, not -1"),
        (PCALocalityScoreMachine, {"threshold": 1.5}, "threshold must be from 0 to 1, not 1.5"),
        (PCALocalityScoreMachine, {"threshold": 0.5, "batch": 0}, "batch must be a whole number, at least 1, not 0"),
        (SquareCropScoreMachine, {"scales": 6}, "images of 5 x 5 pixels have a side from 1 to 5, not 6"),
        (SquareCropScoreMachine, {"scales": 0}, "side must be a whole number, at least 1, not 0"),
        (SquareCropScoreMachine, {"scales": ScaleTable([0.5], [7])}, "a side from 1 to 5, not 7"),
        (FlexibleCropScoreMachine, {}, "FlexibleCropScoreMachine needs crops"),
        (FlexibleCropScoreMachine, {"crops": torch.ones(2, 4, 5) > 0}, r"over 5 x 5 pixels, not bool of \(2, 4, 5\)"),
        (FlexibleCropScoreMachine, {"crops": torch.ones(2, 5, 5)}, r"not float32 of \(2, 5, 5\)"),
        (FlexibleCropScoreMachine, {"crops": ALL[None]}, "alpha_bar exactly when there are crops for several"),
        (FlexibleCropScoreMachine, {"crops": ALL, "alpha_bar": [0.5]}, "alpha_bar exactly when"),
        (FlexibleCropScoreMachine, {"crops": "nowhere.safetensors"}, "nowhere.safetensors cannot be read"),
    ],
)
def test_parameters_outside_their_range_are_refused(kind, options, complaint, images):
    with pytest.raises(InputError, match=complaint):
        kind(images, **options)


def test_sweeps_over_nothing_or_too_large_squares_are_refused(images, x_t):
    with pytest.raises(InputError, match="at least one side"):
        SquareCropScoreMachine(images, scales=3).sweep(x_t, ALPHA_BAR, [])
    with pytest.raises(InputError, match="a side from 1 to 5, not 7"):
        SquareCropScoreMachine(images, scales=3).sweep(x_t, ALPHA_BAR, [3, 7])
