"""How networks of other libraries are called: one row per library, none of which needs to be installed for it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elslightning.system.errors import InputError


class Interface(NamedTuple):
    """How one library's networks are asked.

    Attributes:
        ask: (network, images as it wants them, (batch,) of what it is told of the noise level, labels or None) -> what
            it returns.
        wants: the attribute by which such a network is known; empty for any module.
        prediction: what it returns, out of `PARAMETRISATIONS`; None: whoever brings it says so.
        time: what it is told, out of `TIMES`; None: as the prediction or the schedule has it.
        conditional: whether it may take labels.
    """

    ask: Callable[[Any, Tensor, Tensor, Tensor | None], Any]
    wants: str = ""
    prediction: str | None = None
    time: str | None = None
    conditional: bool = False


def _plain(network: Any, images: Tensor, time: Tensor, labels: Tensor | None) -> Any:
    return network(images, time) if labels is None else network(images, time, labels)


def _diffusers(network: Any, images: Tensor, time: Tensor, labels: Tensor | None) -> Any:
    return network(images, time, class_labels=labels).sample


def _lucidrains(network: Any, images: Tensor, time: Tensor, labels: Tensor | None) -> Any:
    return network.model_predictions(images, time).pred_x_start


def _smalldiffusion(network: Any, images: Tensor, time: Tensor, labels: Tensor | None) -> Any:
    return network.predict_eps(images, time[:, None, None, None])


def _azula(network: Any, images: Tensor, time: Tensor, labels: Tensor | None) -> Any:
    t, signal = _azula_time(network.schedule, time)
    t, signal = t.to(images), signal.to(images)
    return network(signal[:, None, None, None] * images, t).mean


def _azula_time(schedule: Callable[[Tensor], tuple[Tensor, Tensor]], sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The times in [0, 1] at which `schedule(t) -> (signal, noise)` has noise / signal = sigma, and the signal there.

    Raises:
        InputError: if it has less noise even at t = 1.
    """
    low = torch.zeros(len(sigma), dtype=torch.float64, device=sigma.device)
    high = torch.ones_like(low)

    def reaches(t: Tensor) -> Tensor:
        signal, noise = schedule(t)
        return noise >= signal * sigma

    if not bool(reaches(high).all()):
        raise InputError(f"the network's schedule ends before sigma = {float(sigma.max()):.3g}: name another grid")
    for _ in range(60):
        middle = (low + high) / 2
        there = reaches(middle)
        low, high = middle.where(~there, low), middle.where(there, high)
    return high, schedule(high)[0]


INTERFACES: Mapping[str, Interface] = {
    "plain": Interface(_plain, conditional=True),
    "diffusers": Interface(_diffusers, "config", conditional=True),
    "lucidrains": Interface(_lucidrains, "model_predictions", "x0", "whole"),
    "smalldiffusion": Interface(_smalldiffusion, "predict_eps", "edm_eps"),
    "k_diffusion": Interface(_plain, "", "edm"),
    "azula": Interface(_azula, "schedule", "edm"),
}
"""By the word of `network.interface`.

- `plain`: `network(x, t)`, with a third argument for labels.
- `diffusers`: `UNet2DModel(x, t, class_labels=...).sample`.
- `lucidrains`: denoising-diffusion-pytorch's `GaussianDiffusion.model_predictions(x, t).pred_x_start`, whole t.
- `smalldiffusion`: `predict_eps(y, sigma)`, y = x0 + sigma eps, sigma (batch, 1, 1, 1).
- `k_diffusion`: the wrappers of k-diffusion, `network(y, sigma) -> x0`, sigma (batch,).
- `azula`: `network(signal y, t).mean`, with `network.schedule(t) -> (signal, noise)`.
"""
