"""How long a run will take and how much memory, said before it begins: from steps and evaluations that are measured."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from elslightning.cli.composing import conf_dir
from elslightning.diffusion.denoiser import Denoiser
from elslightning.measurement.cost import Cost, cost
from elslightning.measurement.measurement import Measurement
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.runs.targets import build, trusting
from elslightning.system.errors import InputError
from elslightning.system.load import Load
from elslightning.system.progress import duration
from elslightning.training.cost import seconds_per_step

EXPLORED, WEIGHED = 9, 40.0
"""Pairs in the explorer of a report; and the seconds on one core to which its work is bounded."""
DRAWN = 15.0
"""Seconds for the figures of a report, of whatever run."""


BUSY = 1.25
"""From this slowdown on, a range is said."""


class Phase(NamedTuple):
    """Part of a run.

    Attributes:
        name: of it.
        seconds: that it will take if the machine stays as busy with other work as it is now.
        memory: bytes that the process will have; None if that is not known.
    """

    name: str
    seconds: float
    memory: int | None = None


class Estimate(NamedTuple):
    """What is expected of a run.

    Attributes:
        phases: in their order.
        seconds: of what lies before the report, by what bars say of it.
        last: those of the report.
        slowdown: how much longer it takes for the other work there is now, see `elslightning.system.load`.
    """

    phases: list[Phase]
    seconds: dict[str, float]
    last: float = 0.0
    slowdown: float = 1.0

    def __str__(self) -> str:
        """In words, such as "about 23 min (training 12 min and 0.9 GiB, comparison 11 min and 1.2 GiB)"."""
        return in_words(self.phases, self.slowdown)


def in_words(phases: Sequence[Phase], slowdown: float = 1.0) -> str:
    """
    >>> in_words([Phase("training", 700, 2**30), Phase("comparison", 20)])
    'about 12 min (training 12 min and 1.0 GiB, comparison 20 s)'
    >>> in_words([Phase("training", 700)], slowdown=2)
    'about 6 min to 12 min, for the machine has other work to do (training 6 min to 12 min)'
    """

    def said(seconds: float) -> str:
        least, most = duration(seconds / slowdown), duration(seconds)
        return most if slowdown < BUSY or least == most else f"{least} to {most}"

    each = [
        f"{name} {said(seconds)}" + ("" if memory is None else f" and {memory / 2**30:.1f} GiB")
        for name, seconds, memory in phases
    ]
    total = said(sum(phase.seconds for phase in phases))
    why = ", for the machine has other work to do" if " to " in total else ""
    return f"about {total}{why} ({', '.join(each)})"


class Fit(NamedTuple):
    """A training that is ahead.

    Attributes:
        steps: of the optimizer.
        batch_size: images per step.
        looks: validations.
        val_images: that each of them looks at.
        comparisons: in the midst of it, and at its end.
    """

    steps: int
    batch_size: int
    looks: int = 0
    val_images: int = 0
    comparisons: int = 1


def estimate(
    measurement: Measurement,
    network: Denoiser | None,
    images: Tensor,
    labels: Tensor | None,
    *,
    fit: Fit | None = None,
    calibrated: bool = True,
    compared: bool = True,
    report: bool = True,
) -> Estimate | None:
    """What is expected, by measuring; None where something cannot be measured.

    Args:
        measurement: that is ahead; with scales, without a calibration.
        network: on its device.
        images: the bank, (N, channel, height, width).
        labels: (N,), or None.
        fit: the training before it.
        calibrated, compared: whether machines are calibrated, unless they have scales, and compared with the network.
        report: whether there will be one.
    """
    device = images.device if network is None else next(network.parameters(), images).device
    phases, told, repeated, last, load = [], {}, 1, 0.0, Load()
    try:
        # Nothing that is random later depends on it.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), load:
            if fit is not None and network is not None:
                step = seconds_per_step(network, images[: fit.batch_size], _few(labels, fit.batch_size))
                # A look has no way back.
                seconds = step * (fit.steps + fit.looks * fit.val_images / fit.batch_size / 3)
                phases.append(Phase("training", seconds, _memory(device)))
                told["training"], repeated = seconds, fit.comparisons
            if calibrated or compared:
                per = cost(measurement, network, images.to(device), labels)
                memory = _memory(device) + images.numel() * 4
                for name, parts in _parts(measurement, per, compared).items():
                    phases.append(Phase(name, repeated * sum(parts.values()), memory))
                    told |= {what: repeated * seconds for what, seconds in parts.items()}
                if report:
                    last = DRAWN + _exploring(measurement, per) * compared
                    phases.append(Phase("report", last))
    except InputError:  # the work itself says what is wrong
        return None
    return Estimate(phases, told, last, load.slowdown if device.type == "cpu" else 1.0)


def training_of(words: Sequence[str]) -> tuple[DictConfig, Measurement, NetworkDenoiser, torch.device]:
    """The configuration of a training, its measurement, and its network on the device where it will be.

    Args:
        words: of its command line, without flags.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"paths.run_dir={os.curdir}", *words])
    with trusting(cfg.trust):
        machines = {name: build(section) for name, section in (cfg.machines or {}).items()}
        network = NetworkDenoiser(build(cfg.denoiser), build(cfg.schedule))
        measurement = Measurement(machines, build(cfg.calibration), build(cfg.comparison))
    gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    return cfg, measurement, network.to(device), device


def of_training(words: Sequence[str], shape: Sequence[int], train: int, val: int, classes: int) -> Estimate | None:
    """What is expected of a training, before its data are read.

    Args:
        words: of its command line.
        shape: (channel, height, width) of its images.
        train, val: how many of them there are.
        classes: of them; 0 without labels.
    """
    cfg, measurement, network, device = training_of(words)
    count = min(train, int(cfg.data.train_size or train))
    images = torch.zeros(count, *shape, device=device)
    labels = torch.arange(count) % classes if network.conditional and classes else None
    fit = fit_of(cfg.trainer, count, min(val, int(cfg.data.val_size or val)), int(cfg.data.batch_size))
    return None if fit is None else estimate(measurement, network, images, labels, fit=fit)


def fit_of(trainer: Any, train: int, val: int, batch_size: int, done: int = 0, every: int | None = None) -> Fit | None:
    """The training that a trainer's configuration asks for; None if it has no end.

    Args:
        trainer: with `max_epochs`, `max_steps` and `check_val_every_n_epoch`.
        train, val: numbers of images.
        batch_size: of a step.
        done: steps of an earlier start.
        every: epochs from one comparison to the next.
    """
    epoch = math.ceil(train / batch_size)
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    asked = [epochs * epoch] * (epochs not in (None, -1)) + [steps] * (steps not in (None, -1))
    if not asked:
        return None
    ahead = max(0, min(asked) - done)
    looks = ahead // (epoch * (trainer.get("check_val_every_n_epoch") or 1))
    comparisons = 1 + (ahead - 1) // (epoch * every) if every and ahead else 1
    return Fit(ahead, batch_size, looks, val, comparisons)


def _parts(measurement: Measurement, per: Cost, compared: bool) -> dict[str, dict[str, float]]:
    """The seconds of calibration and comparison."""
    found: dict[str, dict[str, float]] = {}
    if measurement.scales is None and measurement.calibrated:
        number = measurement.calibration.num_samples
        found["calibration"] = {what: number * seconds for what, seconds in per.calibration.items()} | per.gradients
    if compared:
        number = measurement.comparison.num_pairs
        found["comparison"] = {what: number * seconds for what, seconds in per.comparison.items()}
    return found


def _exploring(measurement: Measurement, per: Cost) -> float:
    """Pairs are sampled again, and their sources weighed, which takes about as long, and is bounded."""
    steps = measurement.comparison.steps
    theory = max((seconds for what, seconds in per.comparison.items() if what.endswith(f", {steps} steps")), default=0)
    sampled = EXPLORED * theory
    return sampled + min(sampled, WEIGHED / torch.get_num_threads())


def _few(labels: Tensor | None, count: int) -> Tensor | None:
    return None if labels is None else labels[:count]


def _memory(device: torch.device) -> int:
    """Bytes that the process has; on a GPU, that it has had there at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
