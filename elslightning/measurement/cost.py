"""What calibration and comparison will cost, from evaluations that are measured on a part of the bank."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.machines.registry import TRIVIAL, the_theory
from elslightning.machines.soft import RESPONSE
from elslightning.measurement.measurement import Measurement

PROBED = 32
"""So many training images of 32×32 pixels in colour, and more if they are smaller, a machine has while it is measured:
its cost grows in proportion to them."""
BATCH, FEW = 16, 4
"""So many noisy images at once a network is measured with, and a machine."""
_VALUES = 3 * 32 * 32
_ALPHA_BAR = 0.5


class Cost(NamedTuple):
    """Seconds, by what `progress` is told is being done.

    Attributes:
        calibration: per sample of calibration, all its steps.
        comparison: per pair, all steps of the machines and of the network.
        gradients: in all.
    """

    calibration: dict[str, float]
    comparison: dict[str, float]
    gradients: dict[str, float]


def cost(measurement: Measurement, network: Denoiser | None, images: Tensor, labels: Tensor | None) -> Cost:
    """What a sample of the calibration and a pair of the comparison will cost.

    An evaluation of a machine takes time in proportion to the training images that it may use, those of its class if it
    is conditional; so it is measured over a few of them. That of the network is measured as it is.

    Args:
        measurement: has the machines and how often each is evaluated.
        network: that they will be compared with; None if they are calibrated without any.
        images: the bank, (N, channel, height, width), on the device where it will be used.
        labels: (N,), or None where the machines are unconditional.
    """
    values = images[0].numel()
    part = images[: max(PROBED, PROBED * _VALUES // values)]
    classes = 1 if labels is None else len(labels.unique())
    times = max(1.0, len(images) / len(part) / classes)
    settings, compared, probed = measurement.calibration, measurement.comparison, replace(measurement, keep=None)
    counts = compared.network_steps
    counts = list(counts) if isinstance(counts, Sequence) else [counts]
    x_t = torch.randn(BATCH, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    alpha_bar = torch.full((BATCH,), _ALPHA_BAR, dtype=torch.float64)
    kinds = torch.zeros(BATCH, dtype=torch.int64, device=images.device)

    def evaluated(denoiser: Denoiser, batch: int) -> float:
        known = kinds[:batch] if denoiser.learned and denoiser.conditional else None
        return _seconds(lambda: denoiser(x_t[:batch], alpha_bar[:batch], known)) / batch

    of_network = 0.0 if network is None else evaluated(network, BATCH)
    calibration: dict[str, float] = {}
    comparison = {f"network, {count} steps": count * of_network for count in counts}
    once: dict[str, float] = {}
    for name, factory in measurement.machines.items():
        if name not in measurement.calibrated:
            machine: Any = factory(part, None)
            if machine.learned:
                peer = evaluated(machine, BATCH)
                comparison |= {f"{name}, {count} steps": count * peer for count in counts}
                continue
            once[name] = evaluated(machine, FEW) * times
            continue
        machine = factory(part, None, **probed.factories.arguments(name, probed.factories.first(name)))
        tried = once[name] = evaluated(machine, FEW) * times
        sizes = probed.factories.patch_sizes(name)
        if sizes is not None and hasattr(machine, "sweep"):
            fitting = [size for size in sizes if size <= min(images.shape[2:])] or list(sizes[:1])
            sweep = partial(machine.sweep, x_t[:FEW], alpha_bar[:FEW], fitting)
            tried = _seconds(sweep) / FEW * times
        for parameter, options in probed.factories.further(name).items():
            # Responses are tried with the best of the others only.
            tried = tried + len(options) * once[name] if parameter == RESPONSE else tried * len(options)
        calibration[f"calibrating {name}"] = settings.steps * (tried + of_network)
        if getattr(machine, "replica", None) is not None:
            comparison[f"{name}, replica, {compared.steps} steps"] = compared.steps * once[name]
    for name, single in once.items():
        comparison[f"{name}, {compared.steps} steps"] = compared.steps * single
        if name not in TRIVIAL:
            comparison[f"{name}, consistency"] = (1 + len(counts)) * single
    heir = the_theory(once)
    if heir is not None:
        comparison |= {
            f"{heir} after {after} network steps": (compared.steps - after) * once[heir]
            for after in compared.handover or ()
            if after < compared.steps
        }
    if compared.stepwise:
        comparison["at the network's states"] = compared.steps * (sum(once.values()) + of_network)
    # Forward, and a way back for every channel, each of which takes about twice as long.
    way = (1 + 2 * images.shape[1]) * of_network
    return Cost(calibration, comparison, {"receptive field": settings.gradient_samples * settings.steps * way})


def _seconds(evaluate: Callable[[], object]) -> float:
    """The lesser time of two evaluations, after one that may compile."""
    with torch.no_grad():
        evaluate()
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            evaluate()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return min(taken)
