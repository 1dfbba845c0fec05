"""What calibration and comparison will cost, from evaluations that are measured on a part of the bank."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.measurement.measurement import Measurement

PROBED = 32
"""So many training images a machine has while it is measured: its cost grows in proportion to them."""
_ALPHA_BAR = 0.5


class Cost(NamedTuple):
    """Seconds.

    Attributes:
        calibration: per sample of calibration, all its steps.
        comparison: per pair, all steps of all machines and of the network.
    """

    calibration: float
    comparison: float


def cost(measurement: Measurement, network: Denoiser, images: Tensor, labels: Tensor | None) -> Cost:
    """What a sample of the calibration and a pair of the comparison will cost.

    An evaluation of a machine takes time in proportion to the training images that it may use, those of its class if it
    is conditional; so it is measured over a few of them. That of the network is measured as it is.

    Args:
        measurement: has the machines and how often each is evaluated.
        network: that they will be compared with.
        images: the bank, (N, channel, height, width).
        labels: (N,), or None where the machines are unconditional.
    """
    part = images[:PROBED]
    classes = 1 if labels is None else len(labels.unique())
    times = len(images) / len(part) / classes
    settings, probed = measurement.calibration, replace(measurement, keep=None)
    calibration = comparison = 0.0
    counts = measurement.comparison.network_steps
    network_steps = sum(counts) if isinstance(counts, Sequence) else counts
    x_t = torch.randn(1, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    alpha_bar = torch.tensor([_ALPHA_BAR], dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.int64) if network.conditional else None
    of_network = _seconds(lambda: network(x_t, alpha_bar, one))
    for name, factory in measurement.machines.items():
        if name not in measurement.calibrated:
            machine = factory(part, None)
            known = one if machine.learned and machine.conditional else None
            comparison += _seconds(lambda m=machine, y=known: m(x_t, alpha_bar, y)) * (1 if machine.learned else times)
            continue
        machine = factory(part, None, **probed.factories.arguments(name, probed.factories.first(name)))
        single = _seconds(lambda m=machine: m(x_t, alpha_bar, None)) * times
        comparison += single
        sizes = probed.factories.patch_sizes(name)
        tried = single
        if sizes is not None and hasattr(machine, "sweep"):
            largest = [size for size in sizes if size <= min(images.shape[2:])] or list(sizes[:1])
            tried = _seconds(lambda m=machine, p=largest: m.sweep(x_t, alpha_bar, p)) * times
        for values in probed.factories.further(name).values():
            tried *= len(values)
        calibration += tried
    return Cost(
        settings.steps * (calibration + of_network),
        measurement.comparison.steps * comparison + network_steps * of_network,
    )


def _seconds(evaluate: object) -> float:
    """The lesser time of two evaluations, after one that may compile."""
    assert callable(evaluate)
    with torch.no_grad():
        evaluate()
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            evaluate()
            taken.append(time.perf_counter() - start)
    return min(taken)
