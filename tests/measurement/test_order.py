"""The order parameter: from as many candidates as there are to the one that a pixel is decided for."""

import math

import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines.canvas import Canvas
from elslightning.machines.registry import MACHINES
from elslightning.measurement.attribution import attribute_process
from elslightning.measurement.order import order_parameter
from elslightning.testing import random_images, random_noise

SCHEDULE = CosineSchedule()


def test_whole_windows_go_from_all_images_to_one():
    canvas = Canvas(MACHINES["bbels"](random_images(5, 1, 6, 6).float(), scales=11))
    found = order_parameter(canvas, random_noise(3, 1, 6, 6).float(), SCHEDULE, 12)
    assert_close(found.effective[0], torch.full((3, 6, 6), 5.0), rtol=0.05, atol=0)
    assert found.order[0].abs().max() < 0.05
    assert_close(found.order[-1], torch.ones(3, 6, 6))
    assert found.main_share[-1].tolist() == [1, 1, 1]


def test_a_pixel_with_more_candidates_than_images_begins_below_0():
    images = random_images(5, 1, 6, 6).float()
    found = order_parameter(Canvas(MACHINES["els"](images, scales=1)), random_noise(2, 1, 6, 6).float(), SCHEDULE, 6)
    assert found.order[0].max() < 1 - math.log(5 * 36 / 2) / math.log(5)
    assert found.main_share[-1].max() < 1


def test_it_is_that_of_the_attributions_of_any_process():
    images, noise = random_images(4, 1, 6, 6).float(), random_noise(2, 1, 6, 6).float()
    machine, guide = MACHINES["bbels"](images, scales=3), MACHINES["is"](images)
    found = order_parameter(Canvas(machine), noise, SCHEDULE, 3, guide=guide)
    wanted = attribute_process(machine, noise, SCHEDULE, 3, denoiser=guide)
    assert torch.equal(found.effective, torch.stack([step.effective for step in wanted.steps]))
    rows = list(found.rows())
    assert [(row["step"], row["sample"]) for row in rows] == [(3, 0), (3, 1), (2, 0), (2, 1), (1, 0), (1, 1)]


def test_of_a_class_it_is_that_of_the_images_of_the_class_alone():
    images, labels = random_images(7, 1, 6, 6).float(), torch.tensor([0, 1, 0, 1, 1, 1, 0])
    noise, asked = random_noise(2, 1, 6, 6).float(), torch.tensor([1, 0])
    conditional = Canvas(MACHINES["bbels"](images, labels, scales=3))
    found = order_parameter(conditional, noise, SCHEDULE, 3, asked)
    for sample, label in enumerate(asked):
        alone = Canvas(MACHINES["bbels"](images[labels == label], scales=3))
        wanted = order_parameter(alone, noise[sample : sample + 1], SCHEDULE, 3)
        assert_close(found.order[:, sample], wanted.order[:, 0])


@pytest.mark.parametrize("size", [(6, 9), (12, 7)])
def test_a_canvas_of_another_size_has_one_too(size):
    canvas = Canvas(MACHINES["bbels"](random_images(3, 1, 6, 6).float(), scales=3))
    found = order_parameter(canvas, random_noise(2, 1, *size).float(), SCHEDULE, 2)
    assert found.effective.shape == (2, 2, *size)
    assert found.effective.min() >= 1
