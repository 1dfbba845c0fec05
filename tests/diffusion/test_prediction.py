"""Every parametrisation gives a Gaussian's exact posterior mean, and has its inverse."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from elslightning.diffusion import prediction as p
from elslightning.diffusion.schedule import add_noise
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

ALPHA_BAR = levels(1e-3, 0.3, 0.9, 1 - 1e-4)
SIGMA_DATA = 0.7
SHAPE = (4, 2, 2, 3)


class Gaussian(NamedTuple):
    """x0 of N(mean, covariance), and what an ideal network says of it, from the joint normal law alone."""

    mean: Tensor
    covariance: Tensor

    def expected(self, x: Tensor, signal: Tensor, noise: Tensor, of_x0: Tensor, of_eps: Tensor) -> Tensor:
        """`E[of_x0 x0 + of_eps eps | x = signal x0 + noise eps]`, coefficients (batch,)."""
        one = torch.eye(len(self.mean), dtype=torch.float64)
        results = []
        for row, a, s, c, d in zip(x.flatten(1), signal, noise, of_x0, of_eps, strict=True):
            precision = torch.linalg.inv(a**2 * self.covariance + s**2 * one)
            together = c * a * self.covariance + d * s * one
            results.append(c * self.mean + together @ precision @ (row - a * self.mean))
        return torch.stack(results).view_as(x)


@pytest.fixture
def gaussian() -> Gaussian:
    size = SHAPE[1] * SHAPE[2] * SHAPE[3]
    root = random_noise(size, size, seed=3) / size**0.5
    return Gaussian(random_images(size, seed=4), root @ root.T)


A, S = ALPHA_BAR.sqrt(), (1 - ALPHA_BAR).sqrt()
SIGMA, ONE, NONE = S / A, torch.ones(4).double(), torch.zeros(4).double()
Q = S / (A + S)


def column(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def eps(gaussian, x_t):
    return gaussian.expected(x_t, A, S, NONE, ONE)


def v(gaussian, x_t):
    return gaussian.expected(x_t, A, S, -S, A)


def score(gaussian, x_t):
    return gaussian.expected(x_t, A, S, NONE, -1 / S)


def edm(gaussian, x_t):
    y, sigma = p.edm_input(x_t, ALPHA_BAR)
    assert_close(sigma, SIGMA, rtol=1e-14, atol=0)
    return gaussian.expected(y, ONE, SIGMA, ONE, NONE)


def edm_raw(gaussian, x_t):
    """F regresses on (x0 - c_skip y) / c_out; y = x0 + sigma eps."""
    scaled, time = p.edm_raw_input(x_t, ALPHA_BAR, SIGMA_DATA)
    assert_close(time, SIGMA.log() / 4, rtol=1e-14, atol=1e-14)
    total = (SIGMA**2 + SIGMA_DATA**2).sqrt()
    skip, out = (SIGMA_DATA / total) ** 2, SIGMA * SIGMA_DATA / total
    return gaussian.expected(scaled * column(total), ONE, SIGMA, (1 - skip) / out, -skip * SIGMA / out)


def flow_noise(gaussian, x_t):
    z, q = p.flow_input(x_t, ALPHA_BAR)
    assert_close(q, Q, rtol=1e-14, atol=0)
    return gaussian.expected(z, 1 - q, q, -ONE, ONE)


def flow_data(gaussian, x_t):
    z, q = p.flow_input(x_t, ALPHA_BAR)
    time = 1 - q
    return gaussian.expected(z, time, 1 - time, ONE, -ONE)


class Row(NamedTuple):
    """A row of the table: what an ideal network returns, and the way to x0 and back."""

    ideal: Callable[[Gaussian, Tensor], Tensor]
    x0_from: Callable[[Tensor, Tensor, Tensor], Tensor]
    from_x0: Callable[[Tensor, Tensor, Tensor], Tensor]


ROWS = {
    "eps": Row(eps, p.x0_from_eps, p.eps_from_x0),
    "v": Row(v, p.x0_from_v, p.v_from_x0),
    "score": Row(score, p.x0_from_score, p.score_from_x0),
    "edm": Row(edm, lambda x_t, value, alpha_bar: value, lambda x_t, x0, alpha_bar: x0),
    "edm raw": Row(
        edm_raw,
        lambda *arguments: p.x0_from_edm_raw(*arguments, SIGMA_DATA),
        lambda *arguments: p.edm_raw_from_x0(*arguments, SIGMA_DATA),
    ),
    "flow, noise at 1": Row(flow_noise, p.x0_from_flow_noise, p.flow_noise_from_x0),
    "flow, data at 1": Row(flow_data, p.x0_from_flow_data, p.flow_data_from_x0),
}


@pytest.fixture
def x_t() -> Tensor:
    return add_noise(random_images(*SHAPE, seed=2), random_noise(*SHAPE), ALPHA_BAR)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_ideal_network_of_every_kind_is_the_posterior_mean_of_a_gaussian(row, gaussian, x_t):
    exact = gaussian.expected(x_t, A, S, ONE, NONE)
    assert_close(row.x0_from(x_t, row.ideal(gaussian, x_t), ALPHA_BAR), exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_ways_to_x0_and_back_are_inverses(row, x_t):
    value = random_noise(*SHAPE, seed=6)
    back = row.from_x0(x_t, row.x0_from(x_t, value, ALPHA_BAR), ALPHA_BAR)
    # From x0 to eps and back, s loses the digits that a / s says.
    assert_close(back, value, rtol=1e-10, atol=1e-10)
    assert_close(row.x0_from(x_t, row.from_x0(x_t, value, ALPHA_BAR), ALPHA_BAR), value, rtol=1e-12, atol=1e-12)


def test_a_network_of_pixels_in_0_1_has_half_the_sigma(gaussian, x_t):
    """Its own Gaussian, of (x + 1) / 2, denoised in its own terms."""
    y, _ = p.edm_input(x_t, ALPHA_BAR)
    theirs = Gaussian((gaussian.mean + 1) / 2, gaussian.covariance / 4)
    x0 = p.from_unit(theirs.expected(p.to_unit(y), ONE, SIGMA / 2, ONE, NONE))
    assert_close(x0, gaussian.expected(x_t, A, S, ONE, NONE), rtol=0, atol=1e-12)
    assert_close(p.from_unit(p.to_unit(x_t)), x_t, rtol=0, atol=1e-14)


@pytest.mark.parametrize("wanted", p.PREDICTIONS)
@pytest.mark.parametrize("prediction", p.PREDICTIONS)
def test_the_target_of_one_prediction_converts_to_that_of_any_other(prediction, wanted):
    x0, noise = random_images(*SHAPE), random_noise(*SHAPE)
    x_t = add_noise(x0, noise, ALPHA_BAR)
    learned, other = (p.target(name, x0, noise, ALPHA_BAR) for name in (prediction, wanted))
    assert_close(p.convert(x_t, learned, ALPHA_BAR, prediction, wanted), other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("value", ["noise", ""])
def test_an_unknown_prediction_is_refused(value, x_t):
    for call in (
        lambda: p.convert(x_t, x_t, ALPHA_BAR, value, "x0"),
        lambda: p.convert(x_t, x_t, ALPHA_BAR, "x0", value),
        lambda: p.target(value, x_t, x_t, ALPHA_BAR),
    ):
        with pytest.raises(InputError, match=rf"prediction must be one of eps, v, x0, not '{value}'"):
            call()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_conversion_keeps_the_precision_of_the_images(row, x_t):
    value = random_noise(*SHAPE, seed=6)
    for convert in row[1:]:
        rounded = convert(x_t.float(), value.float(), ALPHA_BAR)
        assert rounded.dtype == torch.float32
        assert_close(rounded.double(), convert(x_t, value, ALPHA_BAR), rtol=1e-3, atol=1e-3)
