"""Soft machines that draw their candidates: what tiles paint around themselves is what the exact machines paint."""

import math

import numpy as np
import pytest
import torch
from noised import LEVELS, noisy
from torch.testing import assert_close

from elslightning.machines import MACHINES, estimating
from elslightning.machines.tiles import tilings
from elslightning.testing import random_images

soft = pytest.mark.parametrize("name", ["soft_bbels", "soft_els"])


@pytest.mark.parametrize(
    ("size", "softness", "response"), [(3, 1.0, 0.7), (5, 2.0, 0.0), (7, math.inf, 1.0), (9, 1.5, 2.0)]
)
@soft
def test_where_all_candidates_are_looked_at_it_is_exact(name, size, softness, response):
    """Windows reach beyond the border, colours count together, responses leave the image or go around it."""
    images = random_images(5, 3, 12, 15).float()
    options = {"scales": size, "softness": softness, "response": response}
    exact, drawn = (MACHINES[name](images, **options, accuracy=accuracy) for accuracy in ("exact", 1e-6))
    alpha_bar = LEVELS[2:]
    x_t = noisy(random_images(2, 3, 12, 15).float().flip(3), alpha_bar)
    found = drawn.estimate(x_t, alpha_bar)
    assert_close(found.x0, exact(x_t, alpha_bar), rtol=1e-5, atol=1e-5)
    assert float(found.error.max()) == 0.0
    assert not bool(found.doubtful.any())


@soft
def test_the_stated_error_covers_the_exact_mean_at_every_noise_level(name, digits, few):
    """Also where all weigh alike, and tiles that drew together would be wrong together."""
    bank, options = digits[:400], {"scales": 3, "softness": 1.0, "response": 0.7}
    exact, drawn = MACHINES[name](bank, **options), MACHINES[name](bank, **options, accuracy=0.02)
    for level in LEVELS:
        alpha_bar = level.expand(2)
        x_t = noisy(digits[400:402], alpha_bar)
        truth, covered, missed = exact(x_t, alpha_bar), [], []
        for drawn.seed in range(8):
            found = drawn.estimate(x_t, alpha_bar)
            away, sure = (found.x0 - truth).abs(), ~found.doubtful[:, None]
            covered.append(away <= 1.96 * found.error + 1e-5)
            missed.append(away[sure])
            for image, error in zip(sure, found.error, strict=True):
                assert float(error[image].square().sum()) <= 0.02**2 * error.numel()
        assert torch.stack(covered).float().mean() >= 0.9
        assert float(torch.cat(missed).square().mean()) <= 0.02**2


@soft
def test_the_seed_alone_tells_draws_apart(name, digits, few):
    alpha_bar = LEVELS[2:3].expand(3)
    x_t = noisy(digits[400:403], alpha_bar)
    machine = MACHINES[name](digits[:400], scales=3, softness=1.0, response=0.7, accuracy=0.05)
    first = machine(x_t, alpha_bar)
    assert float((machine.replica(x_t, alpha_bar) - first).abs().max()) > 1e-4
    # Alone, in another order, and as one of several settings.
    assert_close(machine(x_t[1:2], alpha_bar[:1]), first[1:2], rtol=1e-5, atol=1e-5)
    assert_close(machine(x_t.flip(0), alpha_bar), first.flip(0), rtol=1e-5, atol=1e-5)
    settings = [{"softness": math.inf, "response": 0.0}, {"softness": 1.0}]
    swept = machine.sweep_settings(x_t, alpha_bar, settings)
    assert_close(swept[1], first, rtol=0, atol=0)
    hard = MACHINES[name.removeprefix("soft_")](digits[:400], scales=3, accuracy=0.05)
    assert_close(swept[0], hard(x_t, alpha_bar), rtol=0, atol=0)


@soft
def test_tiles_together_paint_every_pixel_as_far_as_all_locations_respond(name, digits):
    machine = MACHINES[name](digits[:2], scales=5, softness=1.0, response=1.0)
    form = machine._form(machine._setting_at(LEVELS[:1])[0].tolist())
    painted = np.zeros(64)
    for tiles in tilings(machine, *form):
        pixels, responses = tiles.painted(tiles.asked), tiles.responses(tiles.pixels >= 0)
        np.add.at(painted, pixels[pixels >= 0], responses[pixels >= 0])
    cover = machine._cover(8, 8, torch.from_numpy(form.response[len(form.response) // 2 :]).double())
    assert_close(torch.from_numpy(painted).reshape(8, 8), cover, rtol=1e-6, atol=1e-6)


def test_wide_windows_are_looked_for_in_larger_tiles(digits):
    """A window that fades is as wide as a hard one whose pixels lie as far from its centre in the mean square."""
    machine = MACHINES["soft_els"](torch.zeros(1, 1, 24, 24), scales=17)
    sides = []
    for softness in (0.5, 1.5, 3.0, math.inf):
        form = machine.with_setting({"softness": softness})
        (tiles,) = tilings(machine, *form._form(form._setting_at(LEVELS[:1])[0].tolist()))
        sides.append(tiles.shape[0])
    assert sides == sorted(sides)
    assert sides[0] == 1
    assert sides[-1] == 6  # of 24 pixels in as many as there need be tiles of 7


def test_indices_that_were_not_used_for_longest_go_where_memory_is_short(digits):
    machine = MACHINES["soft_els"](digits[:400], scales=3, softness=1.0, accuracy=0.1, memory_budget=1)
    alpha_bar = LEVELS[1:2]
    x_t = noisy(digits[400:401], alpha_bar)
    first = machine(x_t, alpha_bar)
    machine.with_setting({"softness": 2.0})(x_t, alpha_bar)
    assert len(machine._estimator().cells) == 1
    assert_close(machine(x_t, alpha_bar), first, rtol=0, atol=0)


def test_indices_are_built_once_for_a_bank(digits, monkeypatch):
    """A machine finds those of another with the same images, labels, border and windows."""
    alpha_bar = LEVELS[1:2]
    x_t, bank = noisy(digits[400:401], alpha_bar), digits[:300]
    first = MACHINES["els"](bank, scales=3, accuracy=0.1)(x_t, alpha_bar)
    monkeypatch.setattr(estimating, "build", None)  # whoever calls it fails
    assert_close(MACHINES["els"](bank.clone(), scales=3, accuracy=0.1)(x_t, alpha_bar), first, rtol=0, atol=0)
    hard = MACHINES["soft_els"](bank, scales=3, softness=math.inf, response=0.0, accuracy=0.1)
    assert_close(hard(x_t, alpha_bar), first, rtol=0, atol=0)
    for other in (MACHINES["els"](bank[:299], scales=3, accuracy=0.1), MACHINES["bbels"](bank, scales=3, accuracy=0.1)):
        with pytest.raises(TypeError):
            other(x_t, alpha_bar)
