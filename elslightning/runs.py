"""What each verb does: compose the parts that a configuration names, and run them."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from elslightning import figures
from elslightning.callbacks import ELSComparison
from elslightning.checkpoints import build, build_network, find_checkpoint, load_network
from elslightning.data import ImageDataModule
from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.files import write_arrays
from elslightning.measurement import Measurement
from elslightning.networks import EpsDenoiser
from elslightning.progress import Bars
from elslightning.results import Result
from elslightning.sampling import sample as draw
from elslightning.scales import ScaleTable, load_scales
from elslightning.training import DenoisingTask

# The sections of a run's configuration that later verbs start from.
INHERITED = ("seed", "data", "denoiser", "schedule", "machines", "calibration", "comparison")


def run(cfg: DictConfig, directory: Path) -> Result | None:
    """Does what `cfg.verb` says; returns what calibration and comparison found, if there were any.

    Raises:
        InputError: in one line, for what the configuration or its files do not allow.
    """
    _check_whole(cfg, "seed", minimum=0)
    return VERBS[cfg.verb](cfg, directory)


def train(cfg: DictConfig, directory: Path) -> Result | None:
    """Trains, and then calibrates and compares unless `compare=false`. Returns what the comparison found."""
    _check_whole(cfg, "trainer.max_epochs", minimum=-1)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = _data(cfg)
    network = build_network(cfg)
    measurement = _measurement(cfg)
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
    loggers = [build(part) for part in (cfg.get("logger") or {}).values()]
    if loggers and not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers.append(CSVLogger(str(directory), name="", version=""))  # every run has its metrics.csv
    try:
        trainer = build(cfg.trainer, callbacks=[comparison, *callbacks] if cfg.compare else callbacks, logger=loggers)
        trainer.fit(task, data)
    finally:
        if "wandb" in sys.modules:  # or the next job of a multirun would go on with this run
            sys.modules["wandb"].finish()
    return comparison.result


def calibrate(cfg: DictConfig, directory: Path) -> Result:
    """Calibrates every machine that has scales against the network of a checkpoint."""
    network, data = _network_and_data(cfg)
    measurement = _measurement(cfg)
    images, labels, schedule = data.train_images, data.train_labels, network.schedule
    measurement.check(network, images, labels, schedule)
    device = _device(cfg.device)
    bars = Bars()
    result = measurement.calibrate(
        network.to(device), images.to(device), None if labels is None else labels.to(device), schedule, bars
    )
    result.write(directory, result.figures(schedule))
    return result


def compare(cfg: DictConfig, directory: Path) -> Result:
    """Compares the machines with the network of a checkpoint."""
    network, data = _network_and_data(cfg)
    measurement = _measurement(cfg, _scales(cfg))
    device, labels = _device(cfg.device), data.train_labels
    result = measurement.run(
        network.to(device),
        data.train_images.to(device),
        None if labels is None else labels.to(device),
        network.schedule,
        Bars(),
    )
    result.write(directory, result.figures(network.schedule))
    return result


def sample(cfg: DictConfig, directory: Path) -> None:
    """Draws samples from a network or a machine, into samples.npz and figures/samples.png."""
    for key in ("num_samples", "steps"):
        _check_whole(cfg, key, minimum=1)
    device = _device(cfg.device)
    denoiser, data = _source(cfg)
    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randn(cfg.num_samples, *data.train_images.shape[1:], generator=generator)
    labels = _sample_labels(cfg, denoiser, data)
    samples = draw(
        denoiser.to(device),
        noise.to(device),
        build(cfg.schedule),
        cfg.steps,
        None if labels is None else labels.to(device),
        what=f"sampling {cfg.source}",
        progress=Bars(),
    ).cpu()
    arrays = {"samples": samples} | ({} if labels is None else {"labels": labels})
    write_arrays(directory / "samples.npz", arrays)
    lines = {f"{start}": part for start, part in zip(range(0, 64, 8), samples[:64].split(8), strict=False)}
    figures.save(figures.image_rows(lines), directory / "figures" / "samples.png")


def _source(cfg: DictConfig) -> tuple[Denoiser, ImageDataModule]:
    """The denoiser to sample from, and the data that gives the shape of images."""
    network, data = _network_and_data(cfg) if cfg.checkpoint is not None else (None, _data(cfg))
    if cfg.source == "network":
        if network is None:
            raise InputError("source=network needs checkpoint=PATH")
        return network, data
    if cfg.source not in (cfg.get("machines") or {}):
        raise InputError(f"source must be network or one of {', '.join(cfg.machines)}, not {cfg.source!r}")
    conditional = network.conditional if network is not None else cfg.conditional
    labels = data.train_labels if conditional else None
    if conditional and labels is None:
        raise InputError("conditional=true, but the data has no labels")
    measurement = _measurement(cfg)
    if cfg.source not in measurement.calibrated:
        return measurement.machines[cfg.source](data.train_images, labels), data
    scales = cfg.scales if isinstance(cfg.scales, int) else (_scales(cfg) or {}).get(cfg.source)
    if scales is None:
        raise InputError(f"source={cfg.source} needs scales=PATH, or one odd patch size")
    if isinstance(scales, ScaleTable):
        scales.at(build(cfg.schedule).noise_levels(cfg.steps))
    return measurement.machines[cfg.source](data.train_images, labels, scales=scales), data


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
    """What later verbs start from; the data folder by its full path, for they may run elsewhere."""
    config = _primitives({name: cfg[name] for name in INHERITED if name in cfg})
    if config["data"].get("root") is not None:
        config["data"]["root"] = str(Path(config["data"]["root"]).absolute())
    return config


def inherit(cfg: DictConfig, config: dict[str, Any], overrides: Iterable[str]) -> None:
    """Gives `cfg` the sections of a checkpoint's configuration, except for what the command line overrides.

    Args:
        cfg: the composed configuration, changed in place.
        config: the configuration of the run that made the checkpoint.
        overrides: the command line's `key=value`.
    """
    overrides = list(overrides)
    keys = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
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


def _network_and_data(cfg: DictConfig) -> tuple[EpsDenoiser, ImageDataModule]:
    """The network of `checkpoint`, and the data it was trained on."""
    if cfg.checkpoint is None:
        raise InputError(f"elslightning {cfg.verb} needs checkpoint=PATH: a checkpoint file or a run directory")
    network, config = load_network(cfg.checkpoint)
    inherit(cfg, config, HydraConfig.get().overrides.task)
    return network, _data(cfg)


def _data(cfg: DictConfig) -> ImageDataModule:
    data = build(cfg.data)
    data.setup()
    return data


def _measurement(cfg: DictConfig, scales: dict[str, ScaleTable] | None = None) -> Measurement:
    return Measurement(
        machines={name: build(part) for name, part in (cfg.get("machines") or {}).items()},
        calibration=build(cfg.calibration),
        comparison=build(cfg.comparison),
        seed=cfg.seed,
        scales=scales,
    )


def _scales(cfg: DictConfig) -> dict[str, ScaleTable] | None:
    """The scales that `scales` names, or those beside the checkpoint, or None."""
    if cfg.scales is not None:
        return load_scales(str(cfg.scales))
    if cfg.checkpoint is not None:
        beside = find_checkpoint(cfg.checkpoint).parent.parent / "scales.json"
        if beside.is_file():
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


VERBS: dict[str, Callable[[DictConfig, Path], Result | None]] = {
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
    "sample": sample,
}
