"""What each verb does: compose the parts that a configuration names, and run them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from elslightning.callbacks import ELSComparison
from elslightning.checkpoints import build, build_network, find_checkpoint, load_network
from elslightning.consistency import consistency
from elslightning.data import ImageDataModule, Split
from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.heldout import HELDOUT
from elslightning.launch import check_launch
from elslightning.loggers import build_loggers, identify, session
from elslightning.measurement import Measurement
from elslightning.networks import EpsDenoiser
from elslightning.progress import Bars
from elslightning.provenance import RunRecord, describe, wandb_identity, write
from elslightning.results import Result, Samples
from elslightning.resuming import RandomState, keep_metrics, resumed
from elslightning.sampling import sample as draw
from elslightning.scales import ScaleTable, load_scales
from elslightning.training import DenoisingTask

# The sections of a run's configuration that later verbs start from.
INHERITED = ("seed", "data", "denoiser", "schedule", "machines", "calibration", "comparison")


def run(cfg: DictConfig, directory: Path) -> Result | Samples | None:
    """Does what `cfg.verb` says; returns what it found, if anything.

    Raises:
        InputError: in one line, for what the configuration or its files do not allow.
    """
    verb = HydraConfig.get().job.config_name
    if cfg.verb != verb:
        raise InputError(f"the configuration is for elslightning {cfg.verb}, and does not work with {verb}")
    _check_whole(cfg, "seed", minimum=0)
    return VERBS[cfg.verb](cfg, directory)


def train(cfg: DictConfig, directory: Path) -> Result | None:
    """Trains, and then calibrates and compares unless `compare=false`. Returns what the comparison found.

    With `resume`, `directory` is that of an earlier training, which goes on from its last checkpoint.
    """
    resume, step = cfg.resume is not None, 0
    if resume:
        cfg, step = resumed(cfg, directory)
    _check_whole(cfg, "trainer.max_epochs", minimum=-1)
    check_launch(build(cfg.trainer, logger=False, enable_checkpointing=False))
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = _data(cfg)
    network = build_network(cfg)
    measurement = _measurement(cfg, data)
    measurement.check(network, data.train_images, data.train_labels, network.schedule)
    task = DenoisingTask(
        network,
        network.schedule,
        optimizer=build(cfg.optimizer),
        scheduler=build(cfg.scheduler),
        seed=cfg.seed,
        config=_inheritance(cfg),
    )
    # The comparison stands before weight averaging, so that it sees the averaged weights.
    comparison = ELSComparison(measurement, directory)
    callbacks = [build(part) for part in (cfg.get("callbacks") or {}).values()]
    config = _primitives(cfg)
    identity = (wandb_identity(directory) if resume else None) or identify(directory)
    loggers = build_loggers(config.get("logger") or {}, directory, identity)
    wandb = identity if any(hasattr(logger, "use_artifact") for logger in loggers) else None
    about = {"seed": cfg.seed, "data": data, "overrides": _overrides(), "wandb": wandb}
    record = RunRecord(directory, config, resumed=resume, **about)
    callbacks = [record, RandomState(), *([comparison] if cfg.compare else []), *callbacks]
    with session(directory):
        trainer = build(cfg.trainer, callbacks=callbacks, logger=loggers)
        if resume:
            keep_metrics(loggers, directory, step)
        trainer.fit(task, data, ckpt_path=find_checkpoint(directory) if resume else None, weights_only=True)
    return comparison.result


def calibrate(cfg: DictConfig, directory: Path) -> Result:
    """Calibrates every machine that has scales against the network of a checkpoint, or on held-out images alone."""
    network: EpsDenoiser | None = None
    if cfg.checkpoint is None and cfg.calibration.objective == HELDOUT:
        data = _data(cfg)
        labels = _labels(data, cfg.conditional)
        schedule = build(cfg.schedule)
    else:
        network, data = _network_and_data(cfg)
        labels, schedule = data.train_labels, network.schedule
    measurement = _measurement(cfg, data)
    measurement.check(network, data.train_images, labels, schedule)
    device = _device(cfg.device)
    record = _describe(cfg, data, device)
    result = measurement.calibrate(
        None if network is None else network.to(device),
        data.train_images.to(device),
        None if labels is None else labels.to(device),
        schedule,
        Bars(),
    )
    write(directory, record)
    result.write(directory, result.figures(schedule))
    return result


def compare(cfg: DictConfig, directory: Path) -> Result:
    """Compares the machines with the network of a checkpoint."""
    network, data = _network_and_data(cfg)
    # Whoever sets how to calibrate wants it done, and not the scales that lie beside the checkpoint.
    anew = cfg.scales is None and any(key.split(".")[0] == "calibration" for key in _keys(_overrides()))
    measurement = _measurement(cfg, data, None if anew else _scales(cfg))
    device, labels = _device(cfg.device), data.train_labels
    record = _describe(cfg, data, device)
    result = measurement.run(
        network.to(device),
        data.train_images.to(device),
        None if labels is None else labels.to(device),
        network.schedule,
        Bars(),
    )
    write(directory, record)
    result.write(directory, result.figures(network.schedule))
    return result


def sample(cfg: DictConfig, directory: Path) -> Samples:
    """Draws samples from a network or a machine, and measures the consistency of a machine's."""
    for key in ("num_samples", "steps"):
        _check_whole(cfg, key, minimum=1)
    device = _device(cfg.device)
    denoiser, data = _source(cfg)
    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randn(cfg.num_samples, *data.train_images.shape[1:], generator=generator)
    labels = _sample_labels(cfg, denoiser, data)
    classes = None if labels is None else labels.to(device)
    record = _describe(cfg, data, device)
    samples = draw(
        denoiser.to(device),
        noise.to(device),
        build(cfg.schedule),
        cfg.steps,
        classes,
        what=f"sampling {cfg.source}",
        progress=Bars(),
    )
    shares = None if denoiser.learned else consistency(samples, denoiser, classes)
    drawn = Samples(cfg.source, cfg.steps, samples.cpu(), labels, shares)
    write(directory, record)
    drawn.write(directory)
    return drawn


def _source(cfg: DictConfig) -> tuple[Denoiser, ImageDataModule]:
    """The denoiser to sample from, and the data that gives the shape of images."""
    network, data = _network_and_data(cfg) if cfg.checkpoint is not None else (None, _data(cfg))
    if cfg.source == "network":
        if network is None:
            raise InputError("source=network needs checkpoint=PATH")
        return network, data
    if cfg.source not in (cfg.get("machines") or {}):
        raise InputError(f"source must be network or one of {', '.join(cfg.machines)}, not {cfg.source!r}")
    labels = _labels(data, network.conditional if network is not None else cfg.conditional)
    measurement = _measurement(cfg, data)
    if cfg.source not in measurement.calibrated:
        return measurement.machines[cfg.source](data.train_images, labels), data
    scales = (_scales(cfg) or {}).get(cfg.source)
    if scales is None:
        raise InputError(f"source={cfg.source} needs scales=PATH, or one odd patch size")
    scales.at(build(cfg.schedule).noise_levels(cfg.steps))
    return measurement.machines[cfg.source](data.train_images, labels, scales=scales), data


def _labels(data: ImageDataModule, conditional: bool) -> torch.Tensor | None:
    """The labels of the training images for a conditional machine, None for another."""
    if conditional and data.train_labels is None:
        raise InputError("conditional=true, but the data has no labels")
    return data.train_labels if conditional else None


def _sample_labels(cfg: DictConfig, denoiser: Denoiser, data: ImageDataModule) -> torch.Tensor | None:
    if not denoiser.conditional or data.train_labels is None:
        if cfg.label is not None:
            raise InputError(f"label={cfg.label}, but {cfg.source} is unconditional")
        return None
    present = data.train_labels.unique()
    if cfg.label is not None and cfg.label not in present.tolist():
        raise InputError(f"label={cfg.label} is not a class of the data: {present.tolist()}")
    classes = present if cfg.label is None else torch.tensor([cfg.label])
    return classes[torch.arange(cfg.num_samples) % len(classes)]


def _inheritance(cfg: DictConfig) -> dict[str, Any]:
    """What later verbs start from; folders and files by their full paths, for they may run elsewhere."""
    config = _primitives({name: cfg[name] for name in INHERITED if name in cfg})
    if config["data"].get("root") is not None:
        config["data"]["root"] = str(Path(config["data"]["root"]).expanduser().absolute())
    config["data"].pop("download", None)  # whoever gets the checkpoint is asked anew
    for machine in config["machines"].values():
        if machine.get("path") is not None:
            machine["path"] = str(Path(machine["path"]).absolute())
    return config


def inherit(cfg: DictConfig, config: dict[str, Any], overrides: Iterable[str]) -> None:
    """Gives `cfg` the sections of a checkpoint's configuration, except for what the command line overrides.

    Args:
        cfg: the composed configuration, changed in place.
        config: the configuration of the run that made the checkpoint.
        overrides: the command line's `key=value`.
    """
    overrides = list(overrides)
    keys = _keys(overrides)
    asked = OmegaConf.create(_primitives(cfg))
    OmegaConf.set_struct(cfg, False)
    for section in INHERITED:
        if section not in config or section in keys:
            continue
        cfg[section] = config[section]
        for override, key in zip(overrides, keys, strict=True):
            parent, _, name = key.rpartition(".")
            if override.startswith("~") and key.startswith(f"{section}."):
                OmegaConf.select(cfg, parent).pop(name, None)
            elif key.startswith(f"{section}."):
                OmegaConf.update(cfg, key, OmegaConf.select(asked, key))
    OmegaConf.set_struct(cfg, True)


def _overrides() -> list[str]:
    """The `key=value` of the command line; in a multirun, those of this job."""
    return list(HydraConfig.get().overrides.task)


def _keys(overrides: Iterable[str]) -> list[str]:
    """The keys that the `key=value` of a command line set."""
    return [override.lstrip("+~").split("=", 1)[0] for override in overrides]


def _network_and_data(cfg: DictConfig) -> tuple[EpsDenoiser, ImageDataModule]:
    """The network of `checkpoint`, and the data it was trained on."""
    if cfg.checkpoint is None:
        raise InputError(f"elslightning {cfg.verb} needs checkpoint=PATH: a checkpoint file or a run directory")
    network, config = load_network(cfg.checkpoint)
    overrides = _overrides()
    if "data" not in config and "data" not in _keys(overrides):
        raise InputError(f"checkpoint={cfg.checkpoint} does not say which data it was trained on: give data=NAME")
    inherit(cfg, config, overrides)
    return network, _data(cfg)


def _describe(cfg: DictConfig, data: ImageDataModule, device: torch.device) -> dict[str, Any]:
    """What run.json says: taken before the work begins, and written with its results."""
    return describe(seed=cfg.seed, data=data, device=device, overrides=_overrides())


def _data(cfg: DictConfig) -> ImageDataModule:
    data = build(cfg.data)
    data.setup()
    return data


def _measurement(cfg: DictConfig, data: ImageDataModule, scales: dict[str, ScaleTable] | None = None) -> Measurement:
    return Measurement(
        machines={name: build(part) for name, part in (cfg.get("machines") or {}).items()},
        calibration=build(cfg.calibration),
        comparison=build(cfg.comparison),
        seed=cfg.seed,
        scales=scales,
        heldout=Split(data.val_images, data.val_labels),
        shard_bank=cfg.get("shard_bank", False),
    )


def _scales(cfg: DictConfig) -> dict[str, ScaleTable] | None:
    """The scales that `scales` names, one patch size for all if it is a number, or those beside the checkpoint."""
    if isinstance(cfg.scales, int):
        return dict.fromkeys(cfg.get("machines") or {}, ScaleTable([0.5], [cfg.scales]))
    if cfg.scales is not None and str(cfg.scales).endswith(".pt"):
        table = ScaleTable.from_official(str(cfg.scales), build(cfg.schedule))
        return dict.fromkeys(cfg.get("machines") or {}, table)
    if cfg.scales is not None:
        return load_scales(str(cfg.scales))
    if cfg.checkpoint is not None:
        folder = find_checkpoint(cfg.checkpoint).parent
        beside = folder.parent / "scales.json"
        if folder.name == "checkpoints" and beside.is_file():  # elsewhere, it would be any run's
            return load_scales(beside)
    return None


def _device(name: str | None) -> torch.device:
    if name in ("auto", None):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _check_whole(cfg: DictConfig, key: str, minimum: int) -> None:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise InputError(f"{key} must be a whole number, at least {minimum}, not {value!r}")


def _primitives(config: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)


VERBS: dict[str, Callable[[DictConfig, Path], Result | Samples | None]] = {
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
    "sample": sample,
}
