"""The experiment of a finished run, built again from its files: network, machines, data, noise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from elslightning.data import ImageDataModule, Split
from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import Schedule
from elslightning.measurement.measurement import Measurement
from elslightning.networks import NetworkDenoiser
from elslightning.runs.checkpoints import find_checkpoint, load_network, read_checkpoint
from elslightning.runs.overrides import keys_of
from elslightning.runs.run import Run, read_run
from elslightning.runs.targets import build, own
from elslightning.system.errors import InputError
from elslightning.system.files import read_json

SECTIONS = ("seed", "data", "denoiser", "schedule", "machines", "calibration", "comparison")
"""What a run takes from the checkpoint it works with, unless its own command line sets it."""


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
    """

    network: NetworkDenoiser | None
    machines: dict[str, Denoiser]
    schedule: Schedule
    bank: Tensor
    bank_labels: Tensor | None
    noise: Tensor
    labels: Tensor | None
    skip: int


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
    config, summary = directory / ".hydra" / "config.yaml", directory / "summary.json"
    # An empty summary is enough of a run to draw from, but says nothing that could be reported.
    if directory.is_dir() and not config.is_file() and not (summary.is_file() and read_json(summary)):
        raise InputError(f"{directory} is no finished run: it has neither .hydra/config.yaml nor summary.json")
    run = read_run(directory)
    if run.sampled:
        raise InputError(f"{directory} is a run of elslightning sample, which compares nothing that could be reported")
    return replace(run, config=_complete(run))


def _complete(run: Run) -> DictConfig:
    path = checkpoint_of(run)
    try:
        content = {} if path is None else read_checkpoint(path)["elslightning"]["config"]
    except InputError:
        return run.config
    try:
        return _merge(run, content)
    except (OmegaConfBaseException, AttributeError, TypeError) as error:
        raise InputError(f"the overrides of {run.directory} do not fit its configuration: {error}") from error


def _merge(run: Run, content: Mapping[str, Any]) -> DictConfig:
    config = OmegaConf.create({str(key): value for key, value in run.config.items_ex(resolve=False)})
    overrides = run.overrides if run.setting("verb") not in ("train", None) else []
    keys = keys_of(overrides)
    for section in [section for section in SECTIONS if section in content and section not in keys]:
        changes = [
            (override, key) for override, key in zip(overrides, keys, strict=True) if key.startswith(f"{section}.")
        ]
        asked = {key: run.setting(key) for _, key in changes}
        config[section] = content[section]
        for override, key in changes:
            if override.startswith("~"):
                parent, _, name = key.rpartition(".")
                OmegaConf.select(config, parent).pop(name, None)
            else:
                OmegaConf.update(config, key, asked[key], force_add=True)
    return config


def rebuild(run: Run) -> Experiment:
    """Builds the experiment of a run again; nothing but elslightning's own classes is called.

    Raises:
        InputError: in one line, for what is not there any more, the data for example.
    """
    if run.theory is None or run.steps is None:
        raise InputError("the run compared no machine with a network")
    config = _primitives(run.config, SECTIONS)
    missing = [name for name in ("data", "machines", "comparison", "schedule") if not config.get(name)]
    if missing:
        raise InputError(f"the configuration of the run has no {missing[0]}")
    config = own(config, f"the configuration of {run.directory}")
    network = _network(run)
    data: ImageDataModule = build(config["data"])
    data.setup()
    conditional = network.conditional if network is not None else bool(run.setting("denoiser.conditional"))
    labels = data.train_labels if conditional else None
    if conditional and labels is None:
        raise InputError("the network is class-conditional, but the data has no labels")
    measurement = Measurement(
        machines={name: build(config["machines"][name]) for name in run.theories if name in config["machines"]},
        comparison=build(config["comparison"]),
        seed=int(config.get("seed") or 0),
        scales=run.scales,
        heldout=Split(data.val_images, data.val_labels),
    )
    schedule: Schedule = build(config["schedule"])
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
    )


def _network(run: Run) -> NetworkDenoiser | None:
    path = checkpoint_of(run)
    if path is None:
        return None
    try:
        find_checkpoint(path)
    except InputError:
        return None
    return load_network(path)[0]


def formal_receptive_field(run: Run) -> int | None:
    """The side in pixels of the window that the network's architecture allows; None if it states none."""
    return getattr(_untrained(run), "receptive_field", None)


def parameter_count(run: Run) -> int | None:
    """How many weights the network has; None if the configuration does not say."""
    network = _untrained(run)
    return None if network is None else sum(weight.numel() for weight in network.parameters())


def _untrained(run: Run) -> torch.nn.Module | None:
    """The network of the configuration, without memory for its weights."""
    try:
        config = _primitives(run.config, ("data", "denoiser"))
        with torch.device("meta"):
            network = build(own(config["denoiser"], "denoiser"))  # the files may be a stranger's
        return network if isinstance(network, torch.nn.Module) else None
    except (InputError, KeyError, AttributeError, TypeError):
        return None


def _primitives(config: DictConfig, sections: Iterable[str]) -> dict[str, Any]:
    """Some sections, resolved; the others may refer to what only a running job has."""
    try:
        part = OmegaConf.create({name: config[name] for name in sections if name in config})
        content = OmegaConf.to_container(part, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration of the run cannot be resolved: {' '.join(str(error).split())}") from error
    assert isinstance(content, dict)
    return {str(name): section for name, section in content.items()}
