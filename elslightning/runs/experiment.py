"""The experiment of a run, built from its configuration, or again from its files: network, machines, data, noise.

What a file names may be a stranger's: nothing but elslightning's own classes is built of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from elslightning.data.module import ImageDataModule
from elslightning.data.request import Split
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import CosineSchedule, Schedule
from elslightning.machines.parameters import ParameterTable
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import ComparisonSettings
from elslightning.networks.adapter import ScheduledDenoiser
from elslightning.runs.brought import Brought, inherited_from
from elslightning.runs.checkpoints import configuration_of, open_network
from elslightning.runs.configuration import INHERITED, inherit, primitives
from elslightning.runs.finding import find_checkpoint
from elslightning.runs.layout import CONFIG, SUMMARY
from elslightning.runs.provenance import data_of
from elslightning.runs.run import Run, read_run
from elslightning.runs.targets import build, own
from elslightning.system.errors import InputError
from elslightning.system.files import read_json
from elslightning.system.keeping import Kept


@dataclass(frozen=True)
class Experiment:
    """What a run compared, as it was.

    Attributes:
        network: the trained network; None if its checkpoint is gone.
        machines: by name, with their scales; other networks are left out.
        schedule: gives the noise levels.
        bank: the training images, (N, channel, height, width) in [-1, 1].
        bank_labels: their classes, or None where they have none.
        noise: (pairs, channel, height, width), where every pair starts.
        labels: the class of every pair, or None for an unconditional network.
        skip: so many first times are left out of the machines' process.
        heldout: (M, channel, height, width), validation images; None where they are not known.
    """

    network: ScheduledDenoiser | None
    machines: dict[str, Denoiser]
    schedule: Schedule
    bank: Tensor
    bank_labels: Tensor | None
    noise: Tensor
    labels: Tensor | None
    skip: int
    heldout: Tensor | None = None


def checkpoint_of(run: Run) -> str | Path | None:
    """The checkpoint that a run made, or the one it worked with; None if its configuration names none."""
    named = run.setting("checkpoint")
    return run.directory if run.setting("verb") in ("train", None) else None if named is None else str(named)


def open_run(directory: str | Path) -> Run:
    """Reads a run, its configuration completed by what it took from its checkpoint, if that can be read.

    Raises:
        InputError: for a run of `sample`, one without a configuration and a summary, and as
            `elslightning.runs.run.read_run`.
    """
    directory = Path(directory)
    config, summary = directory / CONFIG, directory / SUMMARY
    # An empty summary is enough of a run to draw from, but says nothing that could be reported.
    if directory.is_dir() and not config.is_file() and not (summary.is_file() and read_json(summary)):
        raise InputError(f"{directory} is no finished run: it has neither {CONFIG} nor {SUMMARY}")
    run = read_run(directory)
    if run.sampled:
        raise InputError(f"{directory} is a run of elslightning sample, which compares nothing that could be reported")
    return replace(run, config=_complete(run))


def brought_by(run: Run) -> Brought | None:
    """The network of the section `network` of a run, to be opened; None where it has none.

    Raises:
        InputError: if the section names something else.
    """
    section = _sections(run, "network").get("network")
    if not section:
        return None
    brought = build(section) if isinstance(section, dict) and "_target_" in section else None
    if not isinstance(brought, Brought):
        raise InputError(f"the section network of {run.directory} names no network")
    return brought


def _complete(run: Run) -> DictConfig:
    path = checkpoint_of(run)
    try:
        brought = brought_by(run)
        content = {} if path is None else configuration_of(path)
        content = content if brought is None else inherited_from(brought)
    except InputError:
        return run.config
    config = OmegaConf.create({str(key): value for key, value in run.config.items_ex(resolve=False)})
    try:
        inherit(config, content, run.overrides if run.setting("verb") not in ("train", None) else [])
    except (OmegaConfBaseException, AttributeError, TypeError) as error:
        raise InputError(f"the overrides of {run.directory} do not fit its configuration: {error}") from error
    return config


def rebuild(run: Run) -> Experiment:
    """Builds the experiment of a run again; nothing but elslightning's own classes is called.

    Raises:
        InputError: in one line, for what is not there any more, the data for example.
    """
    if run.theory is None or run.steps is None:
        raise InputError("the run compared no machine with a network")
    config = _sections(run, *(name for name in INHERITED if name != "calibration"))
    missing = [name for name in ("data", "machines", "comparison", "schedule") if not config.get(name)]
    if missing:
        raise InputError(f"the configuration of the run has no {missing[0]}")
    config["machines"] = {name: config["machines"][name] for name in run.theories if name in config["machines"]}
    network = _network(run)
    data = load_data(config)
    if (known := data_of(run.directory)) is not None and known != data.checksum():
        raise InputError("the images at hand are not those of the run, for they have another checksum")
    conditional = network.conditional if network is not None else bool(run.setting("denoiser.conditional"))
    labels = data.train_labels if conditional else None
    if conditional and labels is None:
        raise InputError("the network is class-conditional, but the data has no labels")
    measurement = build_measurement(config, data, run.scales)
    schedule = schedule_of(run)
    bank = data.train_images
    noise, classes = measurement.pairs(bank, labels)
    return Experiment(
        network=network,
        machines=measurement.build(bank, labels, run.scales, schedule),
        schedule=schedule,
        bank=bank,
        bank_labels=data.train_labels,
        noise=noise,
        labels=classes,
        skip=measurement.comparison.skip,
        heldout=data.val_images,
    )


def _sections(run: Run, *names: str) -> dict[str, Any]:
    """Sections of a run's configuration, resolved, with nothing in them that must not be built."""
    place = f"the configuration of {run.directory}"
    try:
        sections = primitives(run.config, names)
    except InputError as error:
        raise InputError(f"{place} cannot be resolved: {error}") from error
    return own(sections, place)


def _network(run: Run) -> ScheduledDenoiser | None:
    brought = brought_by(run)
    if brought is not None:
        return brought.open()
    path = checkpoint_of(run)
    if path is None:
        return None
    try:
        find_checkpoint(path)
    except InputError:
        return None
    return open_network(path)[0]


def load_data(config: Mapping[str, Any]) -> ImageDataModule:
    """The data of a configuration, loaded from where they are: nothing is fetched."""
    data: ImageDataModule = build({**config["data"], "download": False})
    data.setup()
    return data


def build_measurement(
    config: Mapping[str, Any],
    data: ImageDataModule,
    scales: Mapping[str, ParameterTable] | None = None,
    keep: Kept | None = None,
) -> Measurement:
    """The measurement of a configuration; without `scales` it calibrates."""
    settings = {name: build(config[name]) for name in ("calibration", "comparison") if config.get(name)}
    return Measurement(
        machines={name: build(part) for name, part in (config.get("machines") or {}).items()},
        seed=int(config.get("seed") or 0),
        scales=scales,
        heldout=Split(data.val_images, data.val_labels),
        shard_bank=config.get("shard_bank", False),
        keep=keep,
        **settings,
    )


def schedule_of(run: Run) -> Schedule:
    """The schedule whose grid a run went along: that of its network, unless `comparison.grid` named another.

    Raises:
        InputError: if its configuration names none.
    """
    sections = _sections(run, "schedule", "comparison")
    grid = (sections.get("comparison") or {}).get("grid")
    if grid is not None:
        return ComparisonSettings(grid=grid).schedule(CosineSchedule())
    section = sections.get("schedule")
    if not isinstance(section, dict) or "_target_" not in section:
        raise InputError(f"the configuration of {run.directory} names no schedule")
    schedule = build(section)
    if not isinstance(schedule, Schedule):
        raise InputError(f"the configuration of {run.directory} names no schedule, but a {type(schedule).__name__}")
    return schedule


def formal_receptive_field(config: DictConfig) -> int | None:
    """The side in pixels of the window that the architecture of a configuration's network allows; None if it cannot be
    told."""
    return getattr(_untrained(config), "receptive_field", None)


def parameter_count(config: DictConfig) -> int | None:
    """How many weights the network of a configuration has; None if it cannot be told."""
    network = _untrained(config)
    return None if network is None else sum(weight.numel() for weight in network.parameters())


def _untrained(config: DictConfig) -> torch.nn.Module | None:
    """The network of a configuration, without memory for its weights."""
    try:
        sections = primitives(config, ("data", "denoiser"))
        with torch.device("meta"):
            network = build(own(sections["denoiser"], "denoiser"))
        return network if isinstance(network, torch.nn.Module) else None
    except (InputError, KeyError, AttributeError, TypeError):
        return None
