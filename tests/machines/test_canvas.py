"""Canvases: machines on images of other sizes than their training images, held against their definition."""

import functools
import math

import pytest
import torch
from reference import bell, overlap, window

from elslightning.machines.canvas import Canvas, pieces
from elslightning.machines.registry import MACHINES
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

SIZES = [(9, 7), (7, 11), (5, 5), (6, 5)]
LEVELS = torch.tensor([0.5, 0.9], dtype=torch.float64)


@functools.cache
def candidates(images, own, radius, mode):
    """The patches that a location with this border may copy from, which many locations and levels have in common."""
    sides = images.shape[-2:]
    at = [(y, x) for y in range(sides[0]) for x in range(sides[1])]
    at = [place for place in at if own is None or overlap(*place, *sides, radius) == own]
    return torch.cat([window(images, *place, radius, mode) for place in at])


def patch_mean(x_t, alpha_bar, images, row, column, radius, mode, softness=math.inf):
    """The posterior mean patch (channel, P, P) of one location of a canvas (channel, height, width)."""
    own = None if mode == "circular" else overlap(row, column, *x_t.shape[-2:], radius)
    keys = candidates(images, own, radius, mode)
    side = range(-radius, radius + 1)
    counts = torch.tensor([[bell(softness, y, x) for x in side] for y in side], dtype=torch.float64)
    apart = (window(x_t, row, column, radius, mode) - math.sqrt(alpha_bar) * keys).square() * counts
    weight = torch.softmax(-apart.sum(dim=(1, 2, 3)) / (2 * (1 - alpha_bar)), dim=0)
    return torch.einsum("k,kcyx->cyx", weight, keys)


def by_hand(x_t, alpha_bar, images, radius, mode):
    """bbELS or ELS on a canvas (channel, height, width)."""
    result = torch.empty_like(x_t)
    for row in range(x_t.shape[1]):
        for column in range(x_t.shape[2]):
            found = patch_mean(x_t, alpha_bar, images, row, column, radius, mode)
            result[:, row, column] = found[:, radius, radius]
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch_size", [1, 3, 5])
@pytest.mark.parametrize("name", ["bbels", "els"])
def test_it_is_the_machine_s_definition_on_another_size(name, patch_size, size):
    images, x_t = random_images(3, 2, 6, 7), random_noise(2, 2, *size)
    canvas = Canvas(MACHINES[name](images, scales=patch_size))
    mode = canvas.machine.padding_mode
    wanted = [
        by_hand(one, level, images, patch_size // 2, mode) for one, level in zip(x_t, LEVELS.tolist(), strict=True)
    ]
    assert torch.allclose(canvas(x_t, LEVELS), torch.stack(wanted), atol=1e-11)


@pytest.mark.parametrize("size", [(9, 7), (6, 12)])
def test_responses_paint_a_canvas_from_all_locations_around_a_pixel(size):
    images, (x_t,) = random_images(2, 1, 6, 7), random_noise(1, 1, *size)
    canvas = Canvas(MACHINES["soft_bbels"](images, scales=3, softness=1.2, response=0.8))
    sums, cover = torch.zeros_like(x_t), torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            found = patch_mean(x_t, 0.5, images, row, column, 1, "zeros", softness=1.2)
            for y in range(max(0, row - 1), min(size[0], row + 2)):
                for x in range(max(0, column - 1), min(size[1], column + 2)):
                    weight = bell(0.8, y - row, x - column)
                    sums[:, y, x] += weight * found[:, y - row + 1, x - column + 1]
                    cover[y, x] += weight
    assert torch.allclose(canvas(x_t[None], LEVELS[:1])[0], sums / cover, atol=1e-11)


def test_every_noise_level_has_its_own_window_and_classes_their_own_images():
    images, labels = random_images(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])
    canvas = Canvas(MACHINES["bbels"](images, labels, scales=ScaleTable([0.9, 0.5], [1, 5])))
    x_t, classes = random_noise(2, 1, 8, 8), torch.tensor([1, 0])
    found = canvas(x_t, LEVELS, classes)
    for n, (size, label) in enumerate(((5, 1), (1, 0))):
        alone = Canvas(MACHINES["bbels"](images[label::2], scales=size))
        assert torch.allclose(found[n], alone(x_t[n : n + 1], LEVELS[n : n + 1])[0], atol=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("margin", [0, 1, 2, 3])
def test_pieces_cover_every_pixel_once(margin, mode):
    for length in range(2 * margin + 1, 30):
        found = pieces(length, 7, margin, mode)
        assert [position for piece in found for position in range(length)[piece.place]] == list(range(length))
        for piece in found:
            assert piece.source[piece.take].tolist() == list(range(length)[piece.place])


REFUSED = {
    "smaller than the window": ("bbels", 5, (4, 6), "a canvas of 4 pixels is smaller than the window of 5"),
    "no interior": ("bbels", 7, (9, 9), "a window of 7 pixels leaves no interior of images of 6"),
    "bound to places": ("ls", 3, (9, 9), "none on a canvas of 9 x 9 beside images of 6 x 6"),
}


@pytest.mark.parametrize(("name", "patch_size", "size", "message"), REFUSED.values(), ids=REFUSED)
def test_what_there_can_be_no_canvas_of_is_refused_in_one_line(name, patch_size, size, message):
    canvas = Canvas(MACHINES[name](random_images(2, 1, 6, 6), scales=patch_size))
    with pytest.raises(InputError, match=message) as error:
        canvas.check_canvas(*size, LEVELS)
    assert len(error.value.problems) == 1
    with pytest.raises(InputError, match=message):
        canvas(random_noise(2, 1, *size), LEVELS)
