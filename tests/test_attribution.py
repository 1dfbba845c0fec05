"""Attribution against brute force: which patches, how much of them, and the entropy of all."""

import functools

import pytest
import torch
from contract import LOCAL, MACHINES, levels, random_images, random_noise
from reference import candidates, window
from torch.testing import assert_close

from elslightning.attribution import attribute
from elslightning.schedule import add_noise

ALPHA_BAR = levels(1e-3, 0.5, 0.9, 0.999)
SHAPE = (2, 5, 6)
CASES = [("is", 3), ("es", 3), *((name, size) for name in LOCAL for size in (1, 3, 5))]
DTYPES = [torch.float32, torch.float64]
every_machine = pytest.mark.parametrize("name", MACHINES)


def nearness(offset, length, circular):
    """The signed distance along an axis, the shorter way around if it is circular."""
    return (offset + length // 2) % length - length // 2 if circular else offset


def posterior(name, x_t, alpha_bar, images, patch_size, row, column):
    """(distance², image, row, column) of all candidates of one pixel, by descending weight; ties in order."""
    _, height, width = x_t.shape
    circular, found = name in ("es", "els"), []
    radius, mode = patch_size // 2, "circular" if circular else "zeros"
    if name == "is":
        places = [(row, column)]
    else:
        places = candidates("els" if name == "es" else name, row, column, height, width, radius)
    for y, x in places:
        down, right = nearness(y - row, height, circular), nearness(x - column, width, circular)
        if name in ("is", "es"):
            own, patches = x_t, images.roll((-down, -right), dims=(2, 3))
        else:
            own, patches = window(x_t, row, column, radius, mode), window(images, y, x, radius, mode)
        squares = (own - alpha_bar**0.5 * patches).square().sum(dim=(1, 2, 3)).tolist()
        found += [(square, down**2 + right**2, down, right, n, y, x) for n, square in enumerate(squares)]
    return [(first[0], *first[4:]) for first in sorted(found)]


@functools.cache
def problem(name, patch_size):
    """Images, noisy images, and for each of these (row, column): sources, weights, entropy."""
    images = random_images(4, *SHAPE)
    clean = torch.cat([random_images(2, *SHAPE, seed=3), images[:2]])
    x_t = add_noise(clean, random_noise(*clean.shape), ALPHA_BAR).float().double()
    truth = []
    for x, alpha_bar in zip(x_t, ALPHA_BAR.tolist(), strict=True):
        for row in range(SHAPE[1]):
            for column in range(SHAPE[2]):
                found = posterior(name, x, alpha_bar, images, patch_size, row, column)
                logits = torch.tensor([-each[0] / (2 * (1 - alpha_bar)) for each in found], dtype=torch.float64)
                weight = logits.softmax(dim=0)
                entropy = -(weight * logits.log_softmax(dim=0)).sum()
                truth.append(([each[1:] for each in found], weight, entropy))
    return images, x_t, truth


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("top", [1, 3, 200])
@pytest.mark.parametrize(("name", "patch_size"), CASES)
def test_equals_brute_force(name, patch_size, top, dtype):
    images, x_t, truth = problem(name, patch_size)
    found = attribute(MACHINES[name](images.to(dtype), scales=patch_size), x_t.to(dtype), ALPHA_BAR, top=top)
    assert found.patch_size.tolist() == [0 if name in ("is", "es") else patch_size] * len(x_t)
    assert found.weight.dtype == found.entropy.dtype == torch.float32
    sources = torch.stack([found.image, found.row, found.column], dim=-1).flatten(0, 2)
    for places, weight, entropy, (expected, probability, nats) in zip(
        sources.tolist(), found.weight.flatten(0, 2), found.entropy.flatten(), truth, strict=True
    ):
        count = min(top, len(expected))
        if dtype == torch.float64:
            assert [tuple(place) for place in places[:count]] == expected[:count]
        else:  # two candidates may be closer to each other than float32 can tell
            swapped = [expected.index(tuple(place)) for place in places[:count]]
            assert (probability[swapped] - probability[:count]).abs().max() < 1e-5
        assert places[count:] == [[-1, -1, -1]] * (top - count)
        assert_close(weight[:count].double(), probability[:count], rtol=1e-4, atol=1e-6)
        assert (weight[count:] == 0).all()
        assert_close(entropy.double(), nats, rtol=1e-4, atol=1e-5)
