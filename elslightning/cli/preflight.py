"""Everything that is wrong with a configuration, found before any work begins and said at once."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig

from elslightning.cli.chosen import (
    find_device,
    refuse_label,
    scales_of_source,
    scales_to_compare_with,
)
from elslightning.cli.creating import check_together as check_creation
from elslightning.cli.findings import Findings, as_input
from elslightning.cli.together import problems as device_problems
from elslightning.cli.values import names_network, network_problems, value_problems
from elslightning.data.module import ImageDataModule
from elslightning.data.sources import SIDES
from elslightning.diffusion.border import PADDING_MODES
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines.registry import theory_of
from elslightning.machines.scales import load_scales
from elslightning.measurement.factories import MachineFactory
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.names import NETWORK
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.networks.adapter import NetworkDenoiser, ScheduledDenoiser
from elslightning.runs.brought import Brought
from elslightning.runs.configuration import inheritance, keys_of, overrides_given, primitives
from elslightning.runs.targets import own
from elslightning.system.checks import is_whole, raise_for, whole
from elslightning.training.loggers import mode_problems

Section = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What only a training has: a trainer without callbacks and loggers, and what goes into the one that trains.

    Attributes:
        trainer: without callbacks, loggers and checkpoints; it knows the devices.
        optimizer, scheduler: called with parameters, and with the optimizer and the number of steps.
        callbacks: those that the configuration names.
    """

    trainer: pl.Trainer
    optimizer: partial[torch.optim.Optimizer]
    scheduler: Callable[..., Any]
    callbacks: list[pl.Callback]


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built once: to be checked, and then to work with.

    Attributes:
        data: not loaded yet.
        training: of `train` only.
        doubts: what is legal but unwise, a line each.
    """

    data: ImageDataModule
    schedule: Schedule
    calibration: CalibrationSettings
    comparison: ComparisonSettings
    machines: dict[str, MachineFactory]
    training: Training | None
    doubts: list[str]


def check(cfg: DictConfig, network: ScheduledDenoiser | None = None) -> Parts:
    """Finds all that is wrong with a configuration without data; returns what it names.

    With a checkpoint it is called twice: first for what the command line says, then with its `network` for the
    sections that come from the run that made it.

    Args:
        cfg: the configuration of a verb.
        network: that of `checkpoint` or `network`, once it is loaded.

    Raises:
        InputError: with a line for every problem.
    """
    config = primitives(cfg)
    found = Findings()
    found.add(*value_problems(cfg.verb, config))
    if network is None:
        _check_files(cfg, config, found)
    final = network is not None or not names_network(config)
    if not final:
        config["data"].pop("download", None)  # whether they can be fetched is asked of the data of the checkpoint
    parts, training = _build(config, found), None
    if cfg.verb == "train":
        network = _untrained(config, parts["schedule"], found)
        training = _build_training(config, found)
    if final and not (cfg.verb == "train" and network is None):
        _check_together(cfg, config, parts, network, found)
    if cfg.verb == "train" and not found.problems:
        with found.of():  # what is trained can be opened again
            own(inheritance(cfg), "the configuration")
    raise_for(*found.problems)
    return Parts(**parts, training=training, doubts=doubtful(config, network) if final else [])


def _check_files(cfg: DictConfig, config: Section, found: Findings) -> None:
    """The checkpoint, the device and what to sample from."""
    if "device" in config:
        with found.of():
            counts = [line for key in ("devices", "num_nodes") for line in whole(key, config.get(key, 1), 1)]
            found.add(*counts)
            device = find_device(config["device"])
            found.add(
                *([] if counts else device_problems(config.get("devices", 1), config.get("num_nodes", 1), device))
            )
    if config.get("network"):
        _check_brought(config, found)
    found.add(*network_problems(config))
    scales = config.get("scales")
    if isinstance(scales, str) and not scales.endswith(".pt"):
        with found.of():
            load_scales(scales)


def _check_brought(config: Section, found: Findings) -> None:
    """The words of `network`, before anything is loaded."""
    brought = found.build("network", config["network"])
    if brought is not None and not isinstance(brought, Brought):
        found.add(f"network names a {type(brought).__name__}: choose network=diffusers or network=module")
    elif brought is not None:
        with found.of():
            brought.grid  # noqa: B018  it says what is wrong


def _build(config: Section, found: Findings) -> dict[str, Any]:
    """What stands in every configuration: objects by section, None for what cannot be built."""
    parts = {name: found.build(name, config[name]) for name in ("data", "schedule", "calibration", "comparison")}
    machines = config.get("machines") or {}
    parts["machines"] = {name: found.build(f"machines.{name}", section) for name, section in machines.items()}
    return parts


def _untrained(config: Section, schedule: Schedule | None, found: Findings) -> NetworkDenoiser | None:
    """A network like the one to train, without a trace in the global random number generator."""
    with torch.random.fork_rng(devices=[]):
        backbone = found.build("denoiser", config["denoiser"])
    return None if backbone is None or schedule is None else NetworkDenoiser(backbone, schedule)


def _build_training(config: Section, found: Findings) -> Training:
    """Trainer, optimizer, callbacks of a training; its learning rate and loggers are looked at as well."""
    section = config["trainer"]
    trainer: Any = None
    if not any(problem.startswith("trainer.") for problem in found.problems):
        trainer = found.build("trainer", section | {"logger": False, "enable_checkpointing": False})
    optimizer, scheduler = (found.build(name, config[name]) for name in ("optimizer", "scheduler"))
    endless = section["max_epochs"] == -1 and section.get("max_steps", -1) == -1
    if optimizer is not None:
        with found.of(), as_input("optimizer"):
            made = optimizer([torch.nn.Parameter(torch.zeros(1))])
            if scheduler is not None:
                with as_input("scheduler"):
                    scheduler(made, None if endless else 10)
    callbacks = [found.build(f"callbacks.{name}", part) for name, part in (config.get("callbacks") or {}).items()]
    found.add(*mode_problems(config.get("logger") or {}))
    return Training(trainer, optimizer, scheduler, callbacks)


def _check_together(
    cfg: DictConfig, config: Section, parts: Mapping[str, Any], network: ScheduledDenoiser | None, found: Findings
) -> None:
    """What sections ask of each other."""
    data, machines = parts["data"], parts["machines"]
    sampling = cfg.verb == "sample"
    if sampling and config["source"] != NETWORK:
        if config["source"] not in machines:
            found.add(f"source must be network or one of {', '.join(machines)}, not {config['source']!r}")
            return
        machines = {config["source"]: machines[config["source"]]}
    if sampling and not (network.conditional if network is not None else config["conditional"]):
        with found.of():
            refuse_label(cfg)
    if data is None or None in (parts["schedule"], parts["calibration"], parts["comparison"], *machines.values()):
        return
    side = data.image_size or SIDES.get(data.dataset)
    if cfg.verb == "create":
        if not found.problems:
            with found.of():
                check_creation(cfg, parts, side)
        return
    backbone: Any = getattr(network, "backbone", None)
    if side is not None and hasattr(backbone, "check_sides"):
        with found.of():
            backbone.check_sides(side, side)
    if sampling and config["source"] == NETWORK:
        return
    with found.of():
        measurement = Measurement(machines, parts["calibration"], parts["comparison"])
        _check_machines(cfg, measurement, data.channels, side, network, parts["schedule"], found)


def _check_machines(
    cfg: DictConfig,
    measurement: Measurement,
    channels: int,
    side: int | None,
    network: ScheduledDenoiser | None,
    schedule: Schedule,
    found: Findings,
) -> None:
    """Whether the machines can be made for images of so many channels and, if that is known, of this side."""
    for name in [name for name in measurement.machines if name not in measurement.calibrated]:
        # Crops are of the images' own size, which may not be known yet.
        if side is not None or "crops" not in inspect.signature(measurement.machines[name]).parameters:
            with found.of():
                measurement.machines[name](torch.zeros(1, channels, side or 1, side or 1), None)
    # Where the side of the images is not known yet, it is large enough.
    side_of = side or max(measurement.calibration.patch_sizes)
    shape = (channels, side_of, side_of)
    with found.of():
        if cfg.verb == "sample":
            if cfg.source in measurement.calibrated:
                scales = scales_of_source(cfg)
                if is_whole(cfg.steps, 1):
                    scales.at(schedule.noise_levels(cfg.steps), next(iter(scales.columns)))
                if side is not None:
                    free = measurement.factories.arguments(cfg.source, scales)
                    measurement.machines[cfg.source](torch.zeros(1, *shape), None, **free)
            return
        given = scales_to_compare_with(cfg) if cfg.verb == "compare" else None
        if given is None or side is not None:
            replace(measurement, scales=given).check_scales(network, shape, schedule)


def doubtful(config: Section, network: Denoiser | None) -> list[str]:
    """What a configuration may say, but would rather not: a line each, with what would be right.

    Args:
        config: as plain dictionaries, without errors.
        network: the one to explain, if any.
    """
    lines = []
    machines = config.get("machines") or {}
    padding = (config.get("denoiser") or {}).get("padding_mode", "zeros")
    right, other = (theory_of(mode) for mode in sorted(PADDING_MODES, key=lambda mode: mode != padding))
    if network is not None and config["verb"] != "sample" and other in machines and right not in machines:
        lines.append(
            f"denoiser.padding_mode={padding}, but machines=[{','.join(machines)}]: the theory of such a network is "
            f"{right}; {other} is a control only"
        )
    grid = (config.get("comparison") or {}).get("grid")
    if grid is not None and config["verb"] != "sample" and isinstance(network, ScheduledDenoiser):
        last = float(SCHEDULES[grid]().alpha_bar(torch.ones(())))
        if last < 0.9 * network.least_alpha_bar:
            lines.append(
                f"comparison.grid={grid} goes to alpha_bar = {last:.3g}, but the network's own schedule to "
                f"{network.least_alpha_bar:.3g} only: beyond, it is asked at its last time"
            )
    if config["verb"] != "train":
        ignored = [key for key in keys_of(overrides_given()) if key.split(".")[0] == "denoiser"]
        if ignored:
            lines.append(f"{', '.join(ignored)}: without effect, for the network is that of checkpoint=PATH")
    return lines
