"""Attribution by draws: what leads is near, weights and entropies are about those of all candidates, and all is exact
where all are looked at."""

import math

import numpy as np
import pytest
import torch
from noised import noisy
from torch.nn.functional import pad
from torch.testing import assert_close

from elslightning.diffusion.sampling import ddim
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import MACHINES
from elslightning.measurement.attribution import attribute, attribute_process
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images

pooled = pytest.mark.parametrize("name", ["bbels", "els"])


def both(name, images, labels=None, patch_size=3):
    """The machine with all candidates, and with draws."""
    return (MACHINES[name](images, labels, scales=patch_size, accuracy=accuracy) for accuracy in ("exact", 0.05))


def sources(found):
    return torch.stack([found.image, found.row, found.column], dim=-1)


def same(found, exact):
    assert_close(found.weight, exact.weight, rtol=1e-4, atol=1e-4)
    assert_close(found.entropy, exact.entropy, rtol=1e-4, atol=1e-4)
    # float32 cannot tell all of them apart, and takes sums in different orders.
    assert (sources(found) == sources(exact)).all(dim=-1).double().mean() > 0.99


@pytest.mark.parametrize("patch_size", [1, 3, 5, 9])
@pooled
def test_where_all_candidates_are_looked_at_it_is_exact(name, patch_size):
    """In colour and by class; tiles are cut off, and windows reach beyond the border."""
    images, labels = random_images(6, 3, 12, 15).float(), torch.tensor([0, 1, 1, 0, 1, 1])
    exact, drawn = both(name, images, labels, patch_size)
    alpha_bar, wanted = levels(0.9, 0.3, 0.9), torch.tensor([1, 0, 1])
    x_t = noisy(random_images(3, 3, 12, 15).float().flip(3), alpha_bar)
    found = attribute(drawn, x_t, alpha_bar, wanted, top=4)
    same(found, attribute(exact, x_t, alpha_bar, wanted, top=4))
    assert ((labels[found.image] == wanted[:, None, None, None]) | (found.image < 0)).all()


@pytest.mark.parametrize("stored", [False, True])
@pooled
def test_bytes_and_other_precisions_and_another_patch_size_are_taken(name, stored, digits):
    images = (digits[:40] * 127.5 + 127.5).round().to(torch.uint8) if stored else digits[:40]
    exact, drawn = both(name, images)
    alpha_bar = levels(0.97, 0.5)
    x_t = noisy(digits[400:402], alpha_bar)
    for dtype in (torch.float16, torch.float64):
        given = x_t.half().to(dtype)
        found = attribute(drawn, given, alpha_bar, patch_size=5)
        same(found, attribute(exact, given.float(), alpha_bar, patch_size=5))
        assert found.weight.dtype == found.entropy.dtype == torch.float32


@pooled
def test_equal_patches_come_in_the_same_order_as_with_all_candidates(name):
    texture = random_images(2, 2, 3, 3).repeat(1, 1, 4, 4).float()
    images = torch.cat([torch.full_like(texture, 0.3), texture, texture[1:]])
    exact, drawn = both(name, images)
    x_t, alpha_bar = noisy(images[:2], levels(0.99, 0.7)), levels(0.99, 0.7)
    options = {"top": 9, "prefer": torch.tensor([-1, 3])}
    found, wanted = (attribute(machine, x_t, alpha_bar, **options) for machine in (drawn, exact))
    assert torch.equal(sources(found), sources(wanted))


def test_fewer_candidates_than_are_named_leave_the_rest_empty():
    exact, drawn = both("bbels", random_images(2, 1, 6, 6).float())
    x_t, alpha_bar = noisy(random_images(1, 1, 6, 6, seed=1).float(), levels(0.5)), levels(0.5)
    found, wanted = (attribute(machine, x_t, alpha_bar, top=40) for machine in (drawn, exact))
    same(found, wanted)
    assert torch.equal(found.image < 0, wanted.image < 0)
    assert bool((found.row[found.image < 0] == -1).all())
    assert_close(found.weight.sum(dim=-1), torch.ones(1, 6, 6), rtol=0, atol=1e-5)


def distances(images, x_t, alpha_bar, found, patch_size, circular):
    """(batch, row, column) float64 squared distances of what is named first, of one channel."""
    radius = patch_size // 2
    mode = "circular" if circular else "constant"
    own, bank = (pad(x.double(), [radius] * 4, mode=mode) for x in (x_t, images))
    windows = [x.unfold(2, patch_size, 1).unfold(3, patch_size, 1)[:, 0] for x in (own, bank)]
    first = windows[1][found.image[..., 0], found.row[..., 0], found.column[..., 0]]
    return (windows[0] - alpha_bar.sqrt()[:, None, None, None, None] * first).square().sum(dim=(3, 4))


@pytest.mark.parametrize(("patch_size", "share"), [(3, 0.95), (5, 0.9)])
@pooled
def test_draws_name_the_nearest_patch_of_nearly_all_pixels(name, patch_size, share, digits, few):
    """At low noise, of 97,000 candidates at most, of which a tile looks at 16,000 or fewer."""
    images = digits[:1500]
    exact, drawn = both(name, images, patch_size=patch_size)
    alpha_bar = levels(0.97, 0.9)
    x_t = noisy(digits[1500:1502], alpha_bar)
    found, wanted = attribute(drawn, x_t, alpha_bar), attribute(exact, x_t, alpha_bar)
    mine, least = (distances(images, x_t, alpha_bar, one, patch_size, name == "els") for one in (found, wanted))
    assert (mine <= least * (1 + 1e-5) + 1e-6).double().mean() > share
    assert (mine >= least * (1 - 1e-5) - 1e-6).all()
    assert bool(((found.weight >= 0) & (found.weight <= 1 + 1e-6)).all())
    assert (found.weight.sum(dim=-1) <= 1 + 1e-5).all()
    assert (found.weight.diff(dim=-1) <= 0).all()
    assert (found.weight - wanted.weight)[..., 0].abs().mean() < 0.05
    assert (found.entropy - wanted.entropy).abs().mean() < 0.1
    assert (found.entropy >= -found.weight[..., 0].log() - 1e-4).all()
    assert found.entropy.max() <= math.log(len(images) * 64) + 0.5


@pooled
def test_without_noise_all_candidates_are_looked_at(name, digits, few):
    """What an image is made of, for measures of what it has from where, is exact; beside it, noise is drawn for."""
    images = digits[:1500]
    exact, drawn = both(name, images)
    alpha_bar = levels(1 - 1e-10, 0.9)
    x_t = torch.cat([images[7:8], noisy(digits[1500:1501], alpha_bar[1:])])
    found, wanted = attribute(drawn, x_t, alpha_bar), attribute(exact, x_t, alpha_bar)
    assert torch.equal(sources(found)[0], sources(wanted)[0])
    for field in ("weight", "entropy"):
        assert_close(getattr(found, field)[0], getattr(wanted, field)[0], rtol=1e-5, atol=1e-5)
    assert (found.entropy[1] - wanted.entropy[1]).abs().max() > 1e-3


@pooled
def test_no_source_is_named_twice_and_all_are_candidates(name, digits, few):
    _, drawn = both(name, digits[:400])
    alpha_bar = levels(0.95)
    found = attribute(drawn, noisy(digits[400:401], alpha_bar), alpha_bar, top=16)
    flat = (found.image * 64 + found.row * 8 + found.column).flatten(0, 2)
    assert all(len(np.unique(one[one >= 0])) == (one >= 0).sum() for one in flat.numpy())
    if name == "bbels":
        own = torch.arange(8)
        inside = (own > 0) & (own < 7)
        # On the border rows stay what they are.
        assert (torch.where(inside[:, None, None], own[:, None, None], found.row) == own[:, None, None]).all()
        assert (torch.where(inside[:, None], own[:, None], found.column) == own[:, None]).all()
        rows = found.row[:, inside]
        assert bool(((rows > 0) & (rows < 7)).all())


@pooled
def test_the_same_seed_finds_the_same_and_another_nearly(name, digits, few):
    _, drawn = both(name, digits[:400])
    alpha_bar = levels(0.9, 0.4)
    x_t = noisy(digits[400:402], alpha_bar)
    first, again, other = (attribute(machine, x_t, alpha_bar) for machine in (drawn, drawn, drawn.replica))
    assert torch.equal(sources(first), sources(again))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.entropy, again.entropy)
    assert not torch.equal(first.entropy, other.entropy)
    assert (first.entropy - other.entropy).abs().mean() < 0.1


def test_attributions_of_a_process_are_those_of_its_states(digits, few):
    _, drawn = both("bbels", digits[:200])
    noise, schedule = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), CosineSchedule()
    told = []
    process = attribute_process(drawn, noise, schedule, 3, progress=lambda what, done, total: told.append(done))
    states = ddim(drawn, noise, schedule, 3)
    assert torch.equal(process.samples, states.samples)
    one = attribute(drawn, states.x_t[1], states.alpha_bar[1].expand(2))
    assert torch.equal(sources(process.steps[1]), sources(one))
    assert told == sorted(told)
    assert {1, 2, 3} <= {*told}
    assert process.settled()[-1].tolist() == [1, 1]


def test_a_class_without_images_is_refused():
    _, drawn = both("els", random_images(2, 1, 6, 6).float(), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="no training image with label 7"):
        attribute(drawn, torch.zeros(1, 1, 6, 6), levels(0.5), torch.tensor([7]))
