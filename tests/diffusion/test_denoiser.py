"""x0, eps and score say the same thing; the score is the gradient of the log-density."""

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import eps_from_x0, score_from_x0, x0_from_eps
from elslightning.diffusion.schedule import add_noise
from elslightning.machines import IdealScoreMachine
from elslightning.testing import levels, random_images, random_noise

ALPHA_BAR = levels(1e-4, 0.3, 0.9, 1 - 1e-6)


@pytest.fixture
def x_t():
    return random_noise(4, 2, 3, 4)


@pytest.fixture
def x0():
    return random_images(4, 2, 3, 4)


def test_eps_is_the_noise_that_was_added(x0):
    eps = random_noise(4, 2, 3, 4, seed=5)
    assert_close(eps_from_x0(add_noise(x0, eps, ALPHA_BAR), x0, ALPHA_BAR), eps, rtol=1e-9, atol=1e-9)


def test_x0_and_eps_are_inverses(x_t, x0):
    assert_close(x0_from_eps(x_t, eps_from_x0(x_t, x0, ALPHA_BAR), ALPHA_BAR), x0, rtol=1e-9, atol=1e-9)
    assert_close(eps_from_x0(x_t, x0_from_eps(x_t, x0, ALPHA_BAR), ALPHA_BAR), x0, rtol=1e-9, atol=1e-9)


def test_score_is_minus_eps_over_the_noise_scale(x_t, x0):
    noise = (1 - ALPHA_BAR).sqrt()[:, None, None, None]
    assert_close(score_from_x0(x_t, x0, ALPHA_BAR), -eps_from_x0(x_t, x0, ALPHA_BAR) / noise, rtol=1e-9, atol=1e-9)


def test_score_of_the_posterior_mean_is_the_gradient_of_the_log_density(x_t):
    """Tweedie: the ideal machine's images, noised, are a mixture of Gaussians."""
    images = random_images(5, 2, 3, 4, seed=8)
    x_t.requires_grad_()
    signal, variance = ALPHA_BAR.sqrt()[:, None, None], (1 - ALPHA_BAR)[:, None]
    distance = (x_t.flatten(1)[:, None] - signal * images.flatten(1)[None]).square().sum(dim=2)
    log_density = torch.logsumexp(-distance / (2 * variance), dim=1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x_t)
    score = score_from_x0(x_t, IdealScoreMachine(images)(x_t, ALPHA_BAR), ALPHA_BAR)
    assert_close(score, gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("convert", [eps_from_x0, x0_from_eps, score_from_x0])
def test_conversion_keeps_the_precision_of_the_images(convert, x_t, x0):
    exact = convert(x_t, x0, ALPHA_BAR)
    rounded = convert(x_t.float(), x0.float(), ALPHA_BAR)
    assert rounded.dtype == torch.float32
    assert_close(rounded.double(), exact, rtol=1e-3, atol=1e-3)


def test_denoiser_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Denoiser()


def test_signatures_are_checked_in_tests(x_t, x0):
    with pytest.raises(jaxtyping.TypeCheckError):
        eps_from_x0(x_t, x0[:2], ALPHA_BAR)


@pytest.mark.usefixtures("unchecked")
def test_signatures_are_unchecked_on_request(x_t, x0):
    assert eps_from_x0(x_t, x0[:1], ALPHA_BAR).shape == x_t.shape
