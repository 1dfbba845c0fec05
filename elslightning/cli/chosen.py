"""What the words of a command line choose: network, source, scales, labels, device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from elslightning.data.module import ImageDataModule
from elslightning.diffusion.denoiser import Denoiser
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.scales import ScaleTable, load_scales
from elslightning.measurement.factories import MachineFactory
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.names import NETWORK
from elslightning.networks.adapter import ScheduledDenoiser
from elslightning.runs.belonging import check_files
from elslightning.runs.brought import inherited_from
from elslightning.runs.checkpoints import open_trained
from elslightning.runs.configuration import inherit, keys_of, overrides_given, primitives
from elslightning.runs.finding import find_checkpoint
from elslightning.runs.layout import CHECKPOINT, METRICS, SCALES
from elslightning.runs.metrics import read_losses
from elslightning.runs.provenance import data_of
from elslightning.runs.targets import build
from elslightning.system.errors import InputError

_SAME_DATA = ("data.root", "data.download", "data.batch_size")
"""Keys that do not choose other images."""


def source(
    cfg: DictConfig, network: ScheduledDenoiser | None, data: ImageDataModule, machines: Mapping[str, MachineFactory]
) -> Denoiser:
    """The denoiser to sample from: the network, or the machine that `source` names.

    Args:
        cfg: its `source` is one that there is.
        network: that of the checkpoint, if there is one.
        data: gives machines their images.
        machines: by name.
    """
    if cfg.source == NETWORK:
        assert network is not None
        return network
    labels = labels_for(data, network.conditional if network is not None else cfg.conditional)
    measurement = Measurement(machines)
    if cfg.source not in measurement.calibrated:
        return machines[cfg.source](data.train_images, labels)
    free = measurement.factories.arguments(cfg.source, scales_of_source(cfg))
    return machines[cfg.source](data.train_images, labels, **free)


def scales_of_source(cfg: DictConfig) -> ParameterTable:
    """The scales of the local machine that `source` names.

    Raises:
        InputError: if there are none.
    """
    scales = (find_scales(cfg) or {}).get(cfg.source)
    if scales is None:
        raise InputError(f"source={cfg.source} needs scales=PATH, or one odd patch size")
    return scales


def labels_for(data: ImageDataModule, conditional: bool) -> torch.Tensor | None:
    """The labels of the training images for a conditional machine, None for another."""
    if conditional and data.train_labels is None:
        raise InputError("conditional=true, but the data has no labels")
    return data.train_labels if conditional else None


def sample_labels(cfg: DictConfig, denoiser: Denoiser, data: ImageDataModule) -> torch.Tensor | None:
    """The label of every sample: the one asked for, or the classes of the data in turn; None without a condition."""
    if not denoiser.conditional or data.train_labels is None:
        refuse_label(cfg)
        return None
    present = data.train_labels.unique()
    if cfg.label is not None and cfg.label not in present.tolist():
        raise InputError(f"label={cfg.label} is not a class of the data: {present.tolist()}")
    classes = present if cfg.label is None else torch.tensor([cfg.label])
    return classes[torch.arange(cfg.num_samples) % len(classes)]


def refuse_label(cfg: DictConfig) -> None:
    """Raises InputError if a label is asked for."""
    if cfg.label is not None:
        raise InputError(f"label={cfg.label}, but {cfg.source} is unconditional")


def find_network(cfg: DictConfig) -> tuple[ScheduledDenoiser, str | None]:
    """The network of `checkpoint` or `network`; `cfg` gets what it does not override from the run that made it.

    Also the checksum of the images that it was trained on, if those are to be the images of `cfg` and it is known.
    """
    network: ScheduledDenoiser
    mark: dict[str, Any]
    section = primitives(cfg, ["network"]).get("network")
    if section:
        brought = build(section)
        network, mark = brought.open(), {"config": inherited_from(brought)}
    else:
        network, mark = open_trained(cfg.checkpoint)
    config = mark["config"]
    overrides = overrides_given()
    if "data" not in config and "data" not in keys_of(overrides):
        named = f"network={section['_target_']}" if section else f"checkpoint={cfg.checkpoint}"
        raise InputError(f"{named} does not say which data it was trained on: give data=NAME")
    inherit(cfg, config, overrides)
    others = any(key.split(".")[0] in ("data", "experiment") and key not in _SAME_DATA for key in keys_of(overrides))
    trained_on = mark.get("data_sha256")
    if trained_on is None and not section:
        trained_on = data_of(find_checkpoint(cfg.checkpoint).parent.parent)
    return network, trained_on if isinstance(trained_on, str) and not others else None


def losses_beside(checkpoint: str | None) -> dict[str, list[tuple[int, float]]]:
    """The losses of the training that made a checkpoint, if it lies in the directory of that run; else none."""
    if checkpoint is None:  # a network from elsewhere
        return {}
    folder = find_checkpoint(checkpoint).parent
    if folder.name != Path(CHECKPOINT).parent.name:
        return {}
    return read_losses(folder.parent / METRICS)


def find_scales(cfg: DictConfig) -> dict[str, ParameterTable] | None:
    """The scales that `scales` names, one patch size for all if it is a number, or those beside the checkpoint."""
    if isinstance(cfg.scales, int):
        return dict.fromkeys(cfg.get("machines") or {}, ScaleTable([0.5], [cfg.scales]))
    if cfg.scales is not None and str(cfg.scales).endswith(".pt"):
        table = ScaleTable.from_official(str(cfg.scales), build(cfg.schedule))
        return dict.fromkeys(cfg.get("machines") or {}, table)
    if cfg.scales is not None:
        return load_scales(str(cfg.scales))
    if cfg.get("checkpoint") is not None:
        folder = find_checkpoint(cfg.checkpoint).parent
        beside = folder.parent / SCALES
        if folder.name == Path(CHECKPOINT).parent.name and beside.is_file():  # elsewhere, it would be any run's
            check_files(folder.parent, SCALES)
            return load_scales(beside)
    return None


def scales_to_compare_with(cfg: DictConfig) -> dict[str, ParameterTable] | None:
    """The scales of a comparison; None if it is to calibrate.

    Whoever sets how to calibrate wants it done, and not the scales that lie beside the checkpoint.
    """
    anew = cfg.scales is None and any(key.split(".")[0] == "calibration" for key in keys_of(overrides_given()))
    return None if anew else find_scales(cfg)


def find_device(name: str | None) -> torch.device:
    """The device of this name; "auto" is the GPU if there is one.

    Raises:
        InputError: for one that cannot be used.
    """
    if name in ("auto", None):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from error
    return device
