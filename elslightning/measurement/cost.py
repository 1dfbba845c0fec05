"""What calibration and comparison will cost, from evaluations that are measured on a part of the bank."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.schedule import add_noise
from elslightning.machines.moments import MomentMachine
from elslightning.machines.registry import TRIVIAL, the_theory
from elslightning.machines.scales import ScaleTable
from elslightning.machines.soft import RESPONSE
from elslightning.measurement.calibration import sweep
from elslightning.measurement.candidates import candidates_of, grid
from elslightning.measurement.measurement import Measurement

PROBED = 32
"""So many training images of 32×32 pixels in colour, and more if they are smaller, a machine has while it is measured:
its cost grows in proportion to them."""
DRAWN = 1000
"""So many training images a machine that draws its candidates has, or those of a class, while it is measured."""
POWER = 0.5
"""The power of the number of images with which draws take longer, at most (`benchmarks/full_size.py`); what they are
drawn from is built in a time in proportion to it."""
FEW = 4
"""So many noisy images at once it is measured with, unless that is too quick to be told from what a call costs."""
QUICK = 0.05
"""Seconds: what is quicker is measured with as many images at once as there will be."""
LONG = 0.3
"""Seconds: what takes longer is not measured twice."""
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
    is conditional; so it is measured over a few of them, or over more if it draws them. That of the network, and of
    machines that know moments only, is measured as it is.

    Args:
        measurement: has the machines and how often each is evaluated.
        network: that they will be compared with; None if they are calibrated without any.
        images: the bank, (N, channel, height, width), on the device where it will be used.
        labels: (N,), or None where the machines are unconditional.
    """
    classes = 1 if labels is None else len(labels.unique())
    each = max(1, len(images) // classes)
    part = images[: min(each, max(PROBED, PROBED * _VALUES // images[0].numel()))]
    times = len(images) / len(part) / classes
    settings, compared, probed = measurement.calibration, measurement.comparison, replace(measurement, keep=None)
    counts = compared.network_steps
    counts = list(counts) if isinstance(counts, Sequence) else [counts]
    pairs = min(compared.num_pairs, compared.batch_size)
    # Of the images themselves: where nothing in the bank is near, draws take longer than they will.
    some = torch.arange(max(pairs, settings.num_samples, FEW), device=images.device) % len(images)
    clean = to_floats(images[some])
    alpha_bar = torch.full((len(clean),), _ALPHA_BAR, dtype=torch.float64)
    x_t = add_noise(clean, torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean), alpha_bar)
    kinds = torch.zeros(len(x_t), dtype=torch.int64, device=images.device)

    def evaluated(denoiser: Denoiser, most: int = pairs) -> float:
        known = kinds if denoiser.learned and denoiser.conditional else None
        return _seconds(lambda n: denoiser(x_t[:n], alpha_bar[:n], None if known is None else known[:n]), most)

    def measured(factory: Callable[..., Any], **arguments: Any) -> tuple[Any, float]:
        """A machine over some images, and by what its time is multiplied for all."""
        machine = factory(part, None, **arguments)
        if not _draws(machine):
            return machine, times
        few = images[: min(each, DRAWN)]
        return factory(few, None, **arguments), (each / len(few)) ** POWER

    def indexed(factory: Callable[..., Any], sizes: int, **arguments: Any) -> float:
        """Seconds until all indices are built, for so many patch sizes; after other evaluations, so all is compiled."""
        machine, _ = measured(factory, **arguments)
        if not _draws(machine):
            return 0.0
        start = time.perf_counter()
        with torch.no_grad():
            machine(x_t[:1], alpha_bar[:1])
        return classes * sizes * (time.perf_counter() - start) * each / len(machine.images)

    of_network = 0.0 if network is None else evaluated(network)
    calibration: dict[str, float] = {}
    comparison = {f"network, {count} steps": count * of_network for count in counts}
    once: dict[str, float] = {}
    first: dict[str, float] = {}
    replicas: set[str] = set()
    for name, factory in measurement.machines.items():
        if name not in measurement.calibrated:
            machine: Any = factory(part, None)
            if machine.learned:
                peer = evaluated(machine)
                comparison |= {f"{name}, {count} steps": count * peer for count in counts}
            elif isinstance(machine, MomentMachine):  # what takes time is to learn them, once
                machine = factory(images[:each], None)
                start = time.perf_counter()
                evaluated(machine, 1)
                first[name] = classes * (time.perf_counter() - start)
                once[name] = evaluated(machine)
            else:
                once[name] = evaluated(machine) * times
            continue
        given = None if measurement.scales is None else measurement.scales.get(name)
        if given is not None:
            arguments = probed.factories.arguments(name, given)
            machine, factor = measured(factory, **arguments)
            once[name] = evaluated(machine) * factor
            replicas |= {name} if _draws(machine) else set()
            count = len(given.patch_size.unique()) if isinstance(given, ScaleTable) else 1
            first[name] = indexed(factory, count, **arguments)
            continue
        sizes = probed.factories.patch_sizes(name)
        fitting = None if sizes is None else [size for size in sizes if size <= min(images.shape[2:])] or sizes[:1]
        further = probed.factories.further(name)
        single = []
        for setting in _some(fitting, further):
            machine, factor = measured(factory, **probed.factories.arguments(name, setting))
            single.append(evaluated(machine) * factor)
        once[name] = sum(single) / len(single)
        arguments = probed.factories.arguments(name, probed.factories.first(name))
        machine, factor = measured(factory, **arguments)
        tried = _tried(machine, x_t, alpha_bar, fitting, further, settings.num_samples) * factor
        replicas |= {name} if _draws(machine) else set()
        first[name] = indexed(factory, len(fitting or [1]), **arguments)
        # Responses are tried with the best of the others only.
        tried += max(0, len(further.get(RESPONSE, ())) - 1) * once[name]
        calibration[f"calibrating {name}"] = settings.steps * (tried + of_network)
    for name, seconds in once.items():
        comparison[f"{name}, {compared.steps} steps"] = (
            compared.steps * seconds + first.get(name, 0.0) / compared.num_pairs
        )
        if name in replicas:
            comparison[f"{name}, replica, {compared.steps} steps"] = compared.steps * seconds
        if name not in TRIVIAL:
            comparison[f"{name}, consistency"] = (1 + len(counts)) * seconds
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


def _draws(machine: Any) -> bool:
    return getattr(machine, "replica", None) is not None


def _some(sizes: Sequence[int] | None, further: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Settings that stand for those that may be found: the first one, which is the dearest, and one from the middle."""
    candidates = candidates_of(sizes, further, None)
    return [{name: values[len(values) * part // 4] for name, values in candidates.items()} for part in (0, 2)]


def _tried(
    machine: Any,
    x_t: Tensor,
    alpha_bar: Tensor,
    sizes: Sequence[int] | None,
    further: Mapping[str, Sequence[float]],
    most: int,
) -> float:
    """Seconds per noisy image to try all settings, of responses the first. Many are not all tried: what one value more
    costs of what is free beside the patch size, the others do."""
    others = {name: values[:1] if name == RESPONSE else values for name, values in further.items()}
    several = max(others, key=lambda name: len(others[name]), default=None)

    def swept(count: int) -> float:
        some = {name: values[: count if name == several else 1] for name, values in others.items()}
        settings = grid(candidates_of(sizes, some, None))
        return _seconds(lambda n: sweep(machine, x_t[:n], alpha_bar[:n], settings, None), most)

    one, number = swept(1), math.prod(len(values) for values in others.values())
    return one if number == 1 else one + (number - 1) * max(0.0, swept(2) - one)


def _seconds(evaluate: Callable[[int], object], most: int) -> float:
    """The time per image of an evaluation of so many images, after one that may compile: of `FEW`, or of `most` if that
    is quick; the lesser of two, if it is not long."""

    def taken(count: int) -> float:
        start = time.perf_counter()
        evaluate(count)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with torch.no_grad():
        count = min(FEW, most)
        taken(count)
        found = taken(count)
        if found < QUICK and most > count:
            count = most
            found = taken(count)
        return (min(found, taken(count)) if found < LONG else found) / count
