"""The dial: recall at one end, the given windows at the mark, texture at the other end."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from elslightning.machines.dial import MARK, TEXTURE, dialled, stretched, whole_window, widest
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import MACHINES
from elslightning.machines.scales import ScaleTable
from elslightning.system.errors import InputError
from elslightning.testing import random_images, random_noise

TABLE = ScaleTable([0.9, 0.5, 0.1], [3, 5, 9])


def turned(creativity, whole=31, most=31):
    return dialled(TABLE, creativity, whole=whole, most=most).patch_size.tolist()


def test_the_ends_and_the_mark():
    assert turned(0) == [31, 31, 31]
    assert turned(MARK) == TABLE.patch_size.tolist()
    assert turned(1) == [TEXTURE] * 3


def test_windows_shrink_as_the_dial_is_turned():
    settings = [turned(place / 20) for place in range(21)]
    for before, after in pairwise(settings):
        assert all(a >= b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["bbels", "els"])
def test_at_0_the_machine_sees_whole_images_and_recalls(name):
    images, x_t = random_images(4, 1, 5, 5), random_noise(3, 1, 5, 5)
    whole = whole_window((5, 5), MACHINES[name].padding_mode)
    table = dialled(TABLE, 0, whole=whole, most=whole)
    levels = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    ideal = MACHINES["is" if name == "bbels" else "es"](images)
    assert_close(MACHINES[name](images, scales=table)(x_t, levels), ideal(x_t, levels))


@pytest.mark.parametrize("most", [1, 4, 7, 8])
def test_no_window_is_larger_than_allowed(most):
    assert max(turned(0.2, most=most)) <= most
    assert all(size % 2 == 1 for size in turned(0.2, most=most))


@pytest.mark.parametrize("creativity", [-0.01, 1.01, float("nan")])
def test_there_is_nothing_beyond_the_ends(creativity):
    with pytest.raises(InputError, match="creativity must lie between 0"):
        turned(creativity)


def test_other_canvases_have_windows_of_half_an_image_at_most():
    assert widest((32, 32), (32, 32), "zeros") == 63
    assert widest((32, 32), (32, 48), "zeros") == 15
    assert widest((32, 40), (9, 9), "circular") == 15
    assert widest((4, 4), (9, 9), "zeros") == TEXTURE


def test_windows_are_stretched_with_their_softness():
    table = ScaleTable([0.9, 0.1], [3, 7], {"softness": [1.0, 2.0], "response": [0.0, 1.5]})
    found = stretched(table, 2)
    assert found.columns["patch_size"].tolist() == [5, 13]
    assert found.columns["softness"].tolist() == [2, 4]
    assert found.columns["response"].tolist() == [0, 3]
    assert stretched(table, 2, 9).columns["patch_size"].tolist() == [5, 9]
    other = ParameterTable([0.5], {"threshold": [0.1]})
    assert stretched(other, 2).columns["threshold"].tolist() == [0.1]
