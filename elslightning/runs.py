"""What each verb does: compose the parts that a configuration names, and run them."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from elslightning.arguments import follows
from elslightning.callbacks import ELSComparison
from elslightning.checkpoints import build, build_network, find_checkpoint, written_checkpoint
from elslightning.configuration import check
from elslightning.consistency import consistency
from elslightning.data import ImageDataModule
from elslightning.doubts import doubts
from elslightning.errors import InputError, warn
from elslightning.finite import FiniteCheck
from elslightning.heldout import HELDOUT
from elslightning.launch import check_launch
from elslightning.loggers import build_loggers, identify, session
from elslightning.networks import EpsDenoiser
from elslightning.parts import (
    build_measurement,
    find_device,
    find_network,
    inheritance,
    labels_for,
    load_data,
    overrides_given,
    primitives,
    sample_labels,
    scales_to_compare_with,
    source,
)
from elslightning.progress import Bars
from elslightning.provenance import RunRecord, describe, wandb_identity, write
from elslightning.results import Result, Samples
from elslightning.resuming import RandomState, keep_metrics, resumed
from elslightning.sampling import sample as draw
from elslightning.schedule import CosineSchedule
from elslightning.stopping import STOPS, undisguised
from elslightning.training import DenoisingTask


def run(cfg: DictConfig, directory: Path) -> Result | Samples | None:
    """Does what `cfg.verb` says; returns what it found, if anything.

    Raises:
        InputError: in one line, for what the configuration or its files do not allow.
    """
    verb = HydraConfig.get().job.config_name
    if cfg.verb != verb:
        raise InputError(f"the configuration is for elslightning {cfg.verb}, and does not work with {verb}")
    _warn_of(check(cfg))
    return VERBS[cfg.verb](cfg, directory)


def train(cfg: DictConfig, directory: Path) -> Result | None:
    """Trains, and then calibrates and compares unless `compare=false`. Returns what the comparison found.

    With `resume`, `directory` is that of an earlier training, which goes on from its last checkpoint.
    """
    resume, step = cfg.resume is not None, 0
    if resume:
        cfg, step = resumed(cfg, directory)
    check_launch(build(cfg.trainer, logger=False, enable_checkpointing=False))
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = load_data(cfg)
    network = build_network(cfg)
    measurement = build_measurement(cfg, data)
    measurement.check(network, data.train_images, data.train_labels, network.schedule)
    task = DenoisingTask(
        network,
        network.schedule,
        optimizer=build(cfg.optimizer),
        scheduler=build(cfg.scheduler),
        seed=cfg.seed,
        config=inheritance(cfg),
    )
    # The comparison stands before weight averaging, so that it sees the averaged weights.
    comparison = ELSComparison(measurement, directory)
    callbacks = [build(part) for part in (cfg.get("callbacks") or {}).values()]
    config = primitives(cfg)
    identity = (wandb_identity(directory) if resume else None) or identify(directory)
    loggers = build_loggers(config.get("logger") or {}, directory, identity)
    wandb = identity if any(hasattr(logger, "use_artifact") for logger in loggers) else None
    about = {"seed": cfg.seed, "data": data, "overrides": overrides_given(), "wandb": wandb}
    record = RunRecord(directory, config, resumed=resume, **about)
    callbacks = [record, RandomState(), FiniteCheck(), *([comparison] if cfg.compare else []), *callbacks]
    with session(directory):
        trainer = build(cfg.trainer, callbacks=callbacks, logger=loggers)
        if resume:
            keep_metrics(loggers, directory, step)
        checkpoint = find_checkpoint(directory) if resume else None
        try:
            with undisguised():
                trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        except STOPS as stop:
            stop.add_note(_how_to_go_on(directory, trainer))
            raise
    return comparison.result


def _how_to_go_on(directory: Path, trainer: pl.Trainer) -> str:
    """What to do after a training was stopped."""
    if written_checkpoint(trainer) is None:
        return "there is no checkpoint to go on from"
    if trainer.fit_loop.done:
        return f"the training itself was finished: elslightning compare {shlex.quote(f'checkpoint={directory}')}"
    return f"go on with: elslightning train {shlex.quote(f'resume={directory}')}"


def calibrate(cfg: DictConfig, directory: Path) -> Result:
    """Calibrates every machine that has scales against the network of a checkpoint, or on held-out images alone."""
    network: EpsDenoiser | None = None
    if cfg.checkpoint is None and cfg.calibration.objective == HELDOUT:
        data = load_data(cfg)
        labels = labels_for(data, cfg.conditional)
        schedule = build(cfg.schedule)
    else:
        network, data = _network_and_data(cfg)
        labels, schedule = data.train_labels, network.schedule
    measurement = build_measurement(cfg, data)
    measurement.check(network, data.train_images, labels, schedule)
    device = find_device(cfg.device)
    record = _describe(cfg, data, device)
    result = measurement.calibrate(
        None if network is None else network.to(device),
        data.train_images.to(device),
        None if labels is None else labels.to(device),
        schedule,
        Bars(),
    )
    return _written(result, directory, record, schedule)


def compare(cfg: DictConfig, directory: Path) -> Result:
    """Compares the machines with the network of a checkpoint."""
    network, data = _network_and_data(cfg)
    measurement = build_measurement(cfg, data, scales_to_compare_with(cfg))
    device, labels = find_device(cfg.device), data.train_labels
    record = _describe(cfg, data, device)
    result = measurement.run(
        network.to(device),
        data.train_images.to(device),
        None if labels is None else labels.to(device),
        network.schedule,
        Bars(),
    )
    return _written(result, directory, record, network.schedule)


def _written(result: Result, directory: Path, record: dict[str, Any], schedule: CosineSchedule) -> Result:
    """The result, after its files are written and what is doubtful about it is said."""
    write(directory, record)
    result.write(directory, result.figures(schedule))
    _warn_of(doubts(result))
    return result


def _warn_of(lines: list[str]) -> None:
    if not follows():  # the first process says it
        for line in lines:
            warn(line)


def sample(cfg: DictConfig, directory: Path) -> Samples:
    """Draws samples from a network or a machine, and measures the consistency of a machine's."""
    device = find_device(cfg.device)
    network, data = (None, load_data(cfg)) if cfg.checkpoint is None else _network_and_data(cfg)
    denoiser = source(cfg, network, data)
    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randn(cfg.num_samples, *data.train_images.shape[1:], generator=generator)
    labels = sample_labels(cfg, denoiser, data)
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


def _network_and_data(cfg: DictConfig) -> tuple[EpsDenoiser, ImageDataModule]:
    """The network of `checkpoint`, and the data it was trained on."""
    network = find_network(cfg)
    _warn_of(check(cfg, network))  # again, for the sections are those of the checkpoint now
    return network, load_data(cfg)


def _describe(cfg: DictConfig, data: ImageDataModule, device: torch.device) -> dict[str, Any]:
    """What run.json says: taken before the work begins, and written with its results."""
    return describe(seed=cfg.seed, data=data, device=device, overrides=overrides_given())


VERBS: dict[str, Callable[[DictConfig, Path], Result | Samples | None]] = {
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
    "sample": sample,
}
