"""Precision, recall, density and coverage: held against the definitions of the package prdc, and in known places."""

import numpy as np
import pytest
import torch

from elslightning.measurement import manifold
from elslightning.measurement.manifold import Manifold, patches_of
from elslightning.system.errors import InputError


def prdc(real, fake, k):
    """The four of prdc 0.2, as its formulas say it."""
    apart = np.linalg.norm(real[:, None] - fake[None], axis=2)
    radius = [np.sort(np.linalg.norm(points[:, None] - points[None], axis=2))[:, k] for points in (real, fake)]
    inside = apart < radius[0][:, None]
    return {
        "precision": inside.any(axis=0).mean(),
        "recall": (apart < radius[1][None]).any(axis=1).mean(),
        "density": inside.sum(axis=0).mean() / k,
        "coverage": (apart.min(axis=1) < radius[0]).mean(),
    }


@pytest.mark.parametrize("budget", [1, 2**28], ids=["a row at a time", "at once"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_four_are_those_of_prdc(k, budget, monkeypatch):
    monkeypatch.setattr(manifold, "BUDGET", budget)
    generator = torch.Generator().manual_seed(k)
    points = 2 * torch.randn(40, 3, generator=generator), torch.randn(25, 3, generator=generator) + 1
    real, fake = (Manifold.of(each, k) for each in points)
    found = {
        "precision": real.holds(fake.points).double().mean().item(),
        "recall": fake.holds(real.points).double().mean().item(),
        "density": real.count(fake.points).double().mean().item() / k,
        "coverage": real.reached(fake.points).double().mean().item(),
    }
    assert found == pytest.approx(prdc(*(each.double().numpy() for each in points), k), abs=1e-12)
    assert 0 < found["recall"] < 1


def test_equal_points_count_once_where_asked():
    line = torch.tensor([[0.0], [0.0], [0.0], [1.0], [3.0]])
    assert Manifold.of(line, 1).radius.tolist() == [0, 0, 0, 1, 2]
    assert Manifold.of(line, 1, distinct=True).radius.tolist() == [1, 1, 2]


@pytest.mark.parametrize("neighbours", [0, 3, 4])
def test_a_manifold_needs_more_points_than_neighbours(neighbours):
    with pytest.raises(InputError, match=f"a manifold of {neighbours} neighbours needs more points than 3"):
        Manifold.of(torch.eye(3), neighbours)


def test_patches_are_pieces_of_their_image_each_place_once():
    image = torch.arange(30.0).reshape(1, 1, 5, 6) / 255 * 2 - 1
    patches = patches_of(image.repeat(2, 2, 1, 1), 3, 50, torch.Generator().manual_seed(0))
    assert patches.shape == (2, 12, 18)
    wanted = {tuple(image[0, 0, i : i + 3, j : j + 3].flatten().tolist()) for i in range(3) for j in range(4)}
    for found in patches:
        rounded = {tuple(patch[:9].tolist()) for patch in found}
        assert len(rounded) == len(wanted)
        assert torch.allclose(torch.tensor(sorted(rounded)), torch.tensor(sorted(wanted)), atol=1e-6)
