"""Whether samples are training images again, and whether they are images at all."""

import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.pixels import to_floats
from elslightning.measurement.novelty import BEYOND, MEMORISED, nearest_ratio, outside
from elslightning.testing import random_images, random_noise


def by_hand(samples, images):
    ratios = []
    for sample in samples.double():
        first, second = sorted((sample - image).square().sum().sqrt().item() for image in images.double())[:2]
        ratios.append(first / second)
    return torch.tensor(ratios, dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 2000, 2**28], ids=["two images at once", "a few", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_ratio_of_the_two_least_distances_whatever_the_memory(budget, dtype):
    images, samples = random_images(23, 2, 3, 4).to(dtype), random_noise(6, 2, 3, 4).to(dtype)
    assert_close(nearest_ratio(samples, images, budget=budget), by_hand(samples, images), rtol=1e-6, atol=0)


def test_bytes_stand_for_the_images_they_are():
    images = torch.randint(0, 256, (9, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = random_noise(4, 1, 3, 3)
    assert_close(nearest_ratio(samples, images), by_hand(samples, to_floats(images)), rtol=1e-6, atol=1e-9)


def test_a_copy_is_memorised_even_of_an_image_that_is_there_twice():
    images = random_images(7, 1, 4, 4).float()
    images[3] = images[5]
    assert nearest_ratio(images, images).tolist() == [0.0] * 7


def test_a_little_noise_leaves_a_copy_memorised_and_much_makes_it_new():
    images = random_images(30, 1, 6, 6)
    noise = random_noise(30, 1, 6, 6)
    assert (nearest_ratio(images + 0.01 * noise, images) < MEMORISED).all()
    assert (nearest_ratio(images.roll(1, 0) * 0.5 + 3 * noise, images) > MEMORISED).all()


def test_one_training_image_has_no_second():
    image = random_images(1, 1, 3, 3)
    assert nearest_ratio(torch.cat([image, image + 1]), image).tolist() == [0.0, 1.0]


def test_outside_is_the_share_of_values_no_image_has():
    samples = torch.zeros(3, 1, 2, 2)
    samples[1, 0, 0] = torch.tensor([BEYOND + 0.01, -BEYOND - 0.01])
    samples[2] = torch.tensor([[1.0, -1.04], [float("nan"), float("inf")]])
    assert outside(samples).tolist() == [0.0, 0.5, 0.5]
