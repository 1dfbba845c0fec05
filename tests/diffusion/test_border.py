"""Padding and border classes, against the naive reading of pixels in `reference.py`."""

import pytest
import reference
import torch

from elslightning.diffusion.border import border_class, check_padding_mode, check_patch_size, interior, pad, pixel_class
from elslightning.system.errors import InputError
from elslightning.testing import random_images

GEOMETRIES = [(height, width, radius) for height, width in [(1, 1), (4, 5), (7, 3), (6, 6)] for radius in range(5)]


@pytest.mark.parametrize(("height", "width", "radius"), GEOMETRIES)
def test_classes_are_the_overlaps_with_the_border(height, width, radius):
    classes = pixel_class(height, width, radius)
    pixels = [(y, x) for y in range(height) for x in range(width)]
    for y, x in pixels:
        own = reference.overlap(y, x, height, width, radius)
        alike = {place for place in pixels if reference.overlap(*place, height, width, radius) == own}
        assert {place for place in pixels if classes[place] == classes[y, x]} == alike


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("radius", range(5))
def test_interior_is_where_a_window_stays_inside(length, radius):
    inside = [i for i in range(length) if i - radius >= 0 and i + radius < length]
    assert list(range(length))[interior(length, radius)] == inside


@pytest.mark.parametrize("length", [1, 4, 6])
def test_every_index_is_its_own_class_without_an_interior(length):
    assert border_class(length, (length + 1) // 2).tolist() == list(range(length))


def test_radius_zero_has_one_class_alone():
    assert pixel_class(4, 5, 0).unique().numel() == 1


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_padded_images_hold_the_window_of_every_pixel(radius, padding_mode):
    images = random_images(2, 3, 4, 5)
    padded = pad(images, radius, padding_mode)
    size = 2 * radius + 1
    for y in range(4):
        for x in range(5):
            window = reference.window(images, y, x, radius, padding_mode)
            assert torch.equal(padded[:, :, y : y + size, x : x + size], window)


def test_circular_padding_wraps_at_most_once():
    with pytest.raises(InputError, match="radius 5 wraps more than once around an image of 4 x 6"):
        pad(random_images(1, 1, 4, 6), 5, "circular")


@pytest.mark.parametrize("padding_mode", ["reflect", "", "Zeros"])
def test_unknown_padding_mode_is_named(padding_mode):
    complaint = f"one of zeros, circular, not '{padding_mode}'"
    with pytest.raises(InputError, match=complaint):
        pad(random_images(1, 1, 4, 4), 1, padding_mode)
    with pytest.raises(InputError, match=complaint):
        check_padding_mode(padding_mode)


@pytest.mark.parametrize("patch_size", [-1, 0, 2, 16])
def test_patch_size_must_be_odd_and_positive(patch_size):
    with pytest.raises(InputError, match=f"not {patch_size}$"):
        check_patch_size(patch_size)
    check_patch_size(abs(patch_size) * 2 + 1)
