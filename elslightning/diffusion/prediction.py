"""What networks predict, and the posterior mean that each prediction implies.

Everywhere `x_t = a x0 + s eps` with `a = sqrt(alpha_bar)`, `s = sqrt(1 - alpha_bar)`, `sigma = s / a`, and images in
[-1, 1]. Every parametrisation is an affine function of the posterior mean at the same x_t, with its inverse beside it.
Arguments throughout: images, noisy or predicted, are (batch, channel, height, width) of any floating dtype, which the
result shares; alpha_bar is (batch,) float64 in (0, 1), and coefficients are computed in it.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float, Float64
from torch import Tensor

from elslightning.diffusion.schedule import noise_coefficients
from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.system.errors import InputError

PREDICTIONS = ("eps", "v", "x0")
"""What a network trained here may predict: the noise, the velocity, the image."""


# eps, v, x0 ------------------------------------------------------------------------------------------------


def eps_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar) -> Images:
    """The noise that a posterior mean implies: `eps = (x_t - a x0) / s`; Kamb & Ganguli, eqs. 23-24 (Tweedie).

    >>> import torch
    >>> x_t, x0 = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> eps_from_x0(x_t, x0, torch.tensor([0.5], dtype=torch.float64)).unique().tolist()
    [-1.0]
    """
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (x_t - signal * x0) / noise


def x0_from_eps(x_t: Images, eps: Images, alpha_bar: AlphaBar) -> Images:
    """The posterior mean that predicted noise implies: `x0 = (x_t - s eps) / a`; the inverse of `eps_from_x0`.

    An error of eps grows by `sigma` in it: at high noise it is large.

    >>> import torch
    >>> x_t, eps = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> x0_from_eps(x_t, eps, torch.tensor([0.25], dtype=torch.float64)).unique().tolist()
    [2.0]
    """
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (x_t - noise * eps) / signal


def x0_from_v(x_t: Images, v: Images, alpha_bar: AlphaBar) -> Images:
    """The posterior mean that a predicted velocity `v = a eps - s x0` implies: `x0 = a x_t - s v`.

    Salimans & Ho (2202.00512), section 4. No division: an error of v never grows.

    >>> import torch
    >>> x_t, v = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> x0_from_v(x_t, v, torch.tensor([0.25], dtype=torch.float64)).unique().tolist()
    [0.5]
    """
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return signal * x_t - noise * v


def v_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar) -> Images:
    """The velocity that a posterior mean implies: `v = (a x_t - x0) / s`; the inverse of `x0_from_v`."""
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (signal * x_t - x0) / noise


def eps_from_v(x_t: Images, v: Images, alpha_bar: AlphaBar) -> Images:
    """The noise that a predicted velocity implies: `eps = s x_t + a v` (Salimans & Ho)."""
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return noise * x_t + signal * v


def v_from_eps(x_t: Images, eps: Images, alpha_bar: AlphaBar) -> Images:
    """The velocity that predicted noise implies: `v = (eps - s x_t) / a`; the inverse of `eps_from_v`."""
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (eps - noise * x_t) / signal


def velocity(x0: Images, eps: Images, alpha_bar: AlphaBar) -> Images:
    """The velocity of an image and its noise, what a v-network learns: `v = a eps - s x0` (Salimans & Ho)."""
    signal, noise = noise_coefficients(alpha_bar, x0)
    return signal * eps - noise * x0


# Without a detour over a third one: from v to eps, and from eps to v, x0 would divide and multiply by a again.
_DIRECT: Mapping[tuple[str, str], Callable[[Images, Images, AlphaBar], Images]] = {
    ("eps", "v"): v_from_eps,
    ("eps", "x0"): x0_from_eps,
    ("v", "eps"): eps_from_v,
    ("v", "x0"): x0_from_v,
    ("x0", "eps"): eps_from_x0,
    ("x0", "v"): v_from_x0,
}


def convert(x_t: Images, predicted: Images, alpha_bar: AlphaBar, prediction: str, wanted: str) -> Images:
    """What was predicted as `prediction`, seen as `wanted`; both are names out of `PREDICTIONS`.

    Raises:
        InputError: for another name.
    """
    check_prediction(prediction)
    check_prediction(wanted)
    return predicted if prediction == wanted else _DIRECT[prediction, wanted](x_t, predicted, alpha_bar)


def target(prediction: str, x0: Images, eps: Images, alpha_bar: AlphaBar) -> Images:
    """What a network of this prediction learns to return at `a x0 + s eps`: eps, v or x0.

    Raises:
        InputError: for another name than those of `PREDICTIONS`.
    """
    check_prediction(prediction)
    if prediction == "v":
        return velocity(x0, eps, alpha_bar)
    return eps if prediction == "eps" else x0


def check_prediction(prediction: str) -> None:
    """Raises InputError unless `prediction` is one of `PREDICTIONS`."""
    if prediction not in PREDICTIONS:
        raise InputError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {prediction!r}")


# Score -----------------------------------------------------------------------------------------------------


def score_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar) -> Images:
    """The score of the noised distribution: `(a x0 - x_t) / s²`, eqs. 23-24; equal to `-eps / s`.

    >>> import torch
    >>> x_t, x0 = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> score_from_x0(x_t, x0, torch.tensor([0.75], dtype=torch.float64)).unique().tolist()
    [-4.0]
    """
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (signal * x0 - x_t) / noise**2


def x0_from_score(x_t: Images, score: Images, alpha_bar: AlphaBar) -> Images:
    """The posterior mean that a score implies: `x0 = (x_t + s² score) / a` (Tweedie); inverse of `score_from_x0`."""
    signal, noise = noise_coefficients(alpha_bar, x_t)
    return (x_t + noise**2 * score) / signal


# EDM (Karras et al., 2206.00364) ---------------------------------------------------------------------------


def edm_input(x_t: Images, alpha_bar: AlphaBar) -> tuple[Images, Float64[Tensor, " batch"]]:
    """What an EDM denoiser D(y; sigma) is fed: `y = x_t / a = x0 + sigma eps` and `sigma = s / a`.

    D is the posterior mean itself. Returns y like x_t, and sigma (batch,) float64.
    """
    signal, _ = noise_coefficients(alpha_bar, x_t)
    return x_t / signal, ((1 - alpha_bar) / alpha_bar).sqrt()


def edm_raw_input(
    x_t: Images, alpha_bar: AlphaBar, sigma_data: float = 0.5
) -> tuple[Images, Float64[Tensor, " batch"]]:
    """What EDM's raw network F is fed: `c_in y` with `c_in = 1 / sqrt(sigma² + sigma_data²)`, and `ln(sigma) / 4`.

    Karras et al., Table 1. `sigma_data` is the network's own constant.
    """
    y, sigma = edm_input(x_t, alpha_bar)
    return y / _like(_edm_total(sigma, sigma_data), x_t), sigma.log() / 4


def x0_from_edm_raw(x_t: Images, raw: Images, alpha_bar: AlphaBar, sigma_data: float = 0.5) -> Images:
    """The posterior mean of EDM's raw network F: `c_skip y + c_out F`, Karras et al., eq. 7 and Table 1.

    `c_skip = sigma_data² / (sigma² + sigma_data²)`, `c_out = sigma sigma_data / sqrt(sigma² + sigma_data²)`.
    """
    y, sigma = edm_input(x_t, alpha_bar)
    total = _edm_total(sigma, sigma_data)
    return _like((sigma_data / total) ** 2, x_t) * y + _like(sigma * sigma_data / total, x_t) * raw


def edm_raw_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar, sigma_data: float = 0.5) -> Images:
    """The raw output F that a posterior mean implies: `(x0 - c_skip y) / c_out`; inverse of `x0_from_edm_raw`."""
    y, sigma = edm_input(x_t, alpha_bar)
    total = _edm_total(sigma, sigma_data)
    return (x0 - _like((sigma_data / total) ** 2, x_t) * y) / _like(sigma * sigma_data / total, x_t)


def _edm_total(sigma: Float64[Tensor, " batch"], sigma_data: float) -> Float64[Tensor, " batch"]:
    return (sigma.square() + sigma_data**2).sqrt()


# Flow matching ---------------------------------------------------------------------------------------------


def flow_input(x_t: Images, alpha_bar: AlphaBar) -> tuple[Images, Float64[Tensor, " batch"]]:
    """What a flow network is fed: `z = x_t / (a + s) = (1 - q) x0 + q eps` and `q = s / (a + s)`, its share of noise.

    Straight paths, as in Lipman et al. (2210.02747) and Liu et al. (2209.03003). With the noise at t = 1 (diffusers,
    which counts 1000 q) the network's time is q; with the data at t = 1 (torchcfm, flow_matching) it is 1 - q.
    """
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return x_t / _like(signal + noise, x_t), noise / (signal + noise)


def x0_from_flow_noise(x_t: Images, u: Images, alpha_bar: AlphaBar) -> Images:
    """The posterior mean of a flow with the noise at t = 1, `u = eps - x0`: `x0 = z - q u`."""
    z, q = flow_input(x_t, alpha_bar)
    return z - _like(q, x_t) * u


def flow_noise_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar) -> Images:
    """The velocity of a flow with the noise at t = 1: `u = (z - x0) / q`; the inverse of `x0_from_flow_noise`."""
    z, q = flow_input(x_t, alpha_bar)
    return (z - x0) / _like(q, x_t)


def x0_from_flow_data(x_t: Images, u: Images, alpha_bar: AlphaBar) -> Images:
    """The posterior mean of a flow with the data at t = 1, `u = x0 - eps`: `x0 = z + (1 - t) u`, `t = a / (a + s)`."""
    return x0_from_flow_noise(x_t, -u, alpha_bar)


def flow_data_from_x0(x_t: Images, x0: Images, alpha_bar: AlphaBar) -> Images:
    """The velocity of a flow with the data at t = 1: `u = (x0 - z) / (1 - t)`; the inverse of `x0_from_flow_data`."""
    return -flow_noise_from_x0(x_t, x0, alpha_bar)


# Pixels in [0, 1] ------------------------------------------------------------------------------------------


def to_unit(images: Images) -> Images:
    """Images in [-1, 1], or `x0 + sigma eps` of them, as a network of pixels in [0, 1] has them: `(x + 1) / 2`.

    Such a network's sigma is half of ours: `(x0 + sigma eps + 1) / 2` has noise of `sigma / 2`. A network that is fed
    x_t gets y of `edm_input` through this, and is asked at sigma / 2.
    """
    return (images + 1) / 2


def from_unit(images: Images) -> Images:
    """Images in [0, 1] as ours, in [-1, 1]: `2 x - 1`; the inverse of `to_unit`."""
    return 2 * images - 1


def _like(coefficient: Float64[Tensor, " batch"], images: Images) -> Float[Tensor, "batch 1 1 1"]:
    """A coefficient per image, shaped to multiply images."""
    return coefficient.to(images.device, images.dtype)[:, None, None, None]
