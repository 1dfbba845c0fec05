"""Local consistency against brute force, and on the simplest example: a black and a white image."""

import pytest
import torch
from denoisers import ATTRIBUTABLE, LOCAL
from reference import candidates, translates, window
from torch.nn.functional import pad
from torch.testing import assert_close

from elslightning.diffusion.sampling import sample
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import EquivariantLocalScoreMachine
from elslightning.machines.scales import ScaleTable
from elslightning.measurement.consistency import HALF_GREY_LEVEL, consistency, nearest_centres
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()
DTYPES = [torch.float32, torch.float64]


def nearest_whole(sample, images):
    """The nearest of whole images."""
    return images[(sample - images).square().sum(dim=(1, 2, 3)).argmin()]


def brute_force(machine, sample, images, patch_size):
    """For every pixel of one sample (channel, height, width) the centre of its nearest candidate."""
    if machine == "is":
        return nearest_whole(sample, images)
    if machine == "es":
        return nearest_whole(sample, translates(images))
    _, height, width = sample.shape
    radius, mode = patch_size // 2, "circular" if machine == "els" else "zeros"
    result = torch.empty_like(sample)
    for row in range(height):
        for column in range(width):
            own = window(sample, row, column, radius, mode)
            places = candidates(machine, row, column, height, width, radius)
            patches = torch.cat([window(images, y, x, radius, mode) for y, x in places])
            nearest = (own - patches).square().sum(dim=(1, 2, 3)).argmin()
            result[:, row, column] = patches[nearest][:, radius, radius]
    return result


@pytest.fixture
def images():
    return random_images(4, 2, 5, 6)


@pytest.fixture
def samples(images):
    """Training images, more and more spoilt."""
    spoilt = random_images(3, 1, 5, 6, seed=5) < torch.tensor([-0.8, -0.6, -0.4]).reshape(3, 1, 1, 1)
    return torch.where(spoilt, random_images(3, 2, 5, 6, seed=3), images[:3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("patch_size", [1, 3, 5])
@pytest.mark.parametrize("name", ATTRIBUTABLE)
def test_centres_are_those_of_the_nearest_candidates(images, samples, name, patch_size, dtype):
    centres = nearest_centres(samples.to(dtype), ATTRIBUTABLE[name](images.to(dtype), scales=patch_size))
    expected = torch.stack([brute_force(name, sample, images, patch_size) for sample in samples])
    assert centres.dtype == dtype
    assert_close(centres.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ATTRIBUTABLE)
def test_share_is_that_of_the_pixels_that_equal_their_centre(images, samples, name, dtype):
    shares = consistency(samples.to(dtype), ATTRIBUTABLE[name](images.to(dtype), scales=3))
    expected = [
        ((sample - brute_force(name, sample, images, 3)).abs() < 1e-3).all(dim=0).double().mean() for sample in samples
    ]
    assert_close(shares, torch.stack(expected))
    assert 0 < shares.min() < shares.max() < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ATTRIBUTABLE)
def test_training_images_are_wholly_consistent(images, name, dtype):
    machine = ATTRIBUTABLE[name](images.to(dtype), scales=3)
    assert consistency(images.to(dtype), machine).tolist() == [1] * 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ATTRIBUTABLE)
def test_candidates_that_are_equally_near_are_averaged(name, dtype):
    black_white = torch.tensor([-1.0, 1.0], dtype=dtype).reshape(2, 1, 1, 1).expand(2, 1, 5, 5)
    centres = nearest_centres(torch.zeros(1, 1, 5, 5, dtype=dtype), ATTRIBUTABLE[name](black_white, scales=3))
    assert_close(centres, torch.zeros_like(centres), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("off", "share"), [(0.9, 1), (1.1, 29 / 30)])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_pixel_may_be_off_by_half_a_grey_level_in_every_channel(images, off, share, channel):
    changed = images[:1].clone()
    changed[0, channel, 2, 3] += off * HALF_GREY_LEVEL
    assert consistency(changed, ATTRIBUTABLE["ls"](images, scales=3)).item() == pytest.approx(share)


@pytest.mark.parametrize("sizes", [[3, 5], [5, 3]])
@pytest.mark.parametrize("name", LOCAL)
def test_patch_size_is_that_of_the_lowest_noise_however_far_the_table_reaches(images, samples, name, sizes):
    machine = LOCAL[name](images, scales=ScaleTable([0.5, 0.4], sizes))
    expected = nearest_centres(samples, LOCAL[name](images, scales=sizes[0]))
    assert torch.equal(nearest_centres(samples, machine), expected)


@pytest.mark.parametrize("name", ATTRIBUTABLE)
def test_only_images_of_the_same_class_count(images, name):
    machine = ATTRIBUTABLE[name](images, torch.tensor([0, 0, 1, 1]), scales=3)
    assert consistency(images, machine, torch.tensor([0, 0, 1, 1])).tolist() == [1] * 4
    assert consistency(images, machine, torch.tensor([1, 1, 0, 0])).max() < 1


def test_an_unconditional_machine_takes_no_labels(images):
    machine = ATTRIBUTABLE["is"](images)
    assert consistency(images, machine, torch.arange(4)).tolist() == [1] * 4


# Fig. 3: the images black (-1) and white (+1), P = 3, circular.


@pytest.fixture(scope="module")
def black_white():
    images = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1).repeat(1, 1, 16, 16)
    return EquivariantLocalScoreMachine(images, scales=3)


@pytest.fixture(scope="module")
def drawn(black_white):
    """Samples by the number of steps."""
    noise = random_noise(12, 1, 16, 16)
    return {steps: sample(black_white, noise, SCHEDULE, steps) for steps in (20, 100)}


def test_a_pixel_is_consistent_when_it_has_the_majority_colour_of_its_patch(black_white, drawn):
    colours = drawn[100].sign()
    windows = pad(colours, (1, 1, 1, 1), mode="circular").unfold(2, 3, 1).unfold(3, 3, 1)
    majority = windows.sum(dim=(4, 5)).sign()
    assert_close(consistency(colours, black_white), (colours == majority).flatten(1).double().mean(dim=1))


def test_more_steps_make_more_pixels_consistent(black_white, drawn):
    shares = {steps: consistency(samples, black_white).mean().item() for steps, samples in drawn.items()}
    assert shares == {20: pytest.approx(0.982, abs=0.006), 100: pytest.approx(0.992, abs=0.005)}
    assert shares[20] < shares[100]


def test_samples_are_black_and_white_and_no_two_are_alike(drawn):
    grey = (drawn[100].abs() - 1).abs() > HALF_GREY_LEVEL
    assert grey.double().mean() < 1e-3
    assert len(drawn[100].sign().flatten(1).unique(dim=0)) == 12


def test_float32_finds_the_same(black_white, drawn):
    machine = EquivariantLocalScoreMachine(black_white.images.float(), scales=3)
    for samples in drawn.values():
        assert torch.equal(consistency(samples.float(), machine), consistency(samples, black_white))
