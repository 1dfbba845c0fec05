"""What each verb does: compose the parts that a configuration names, and run them."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig

from elslightning.cli.arguments import follows
from elslightning.cli.chosen import (
    find_device,
    find_network,
    labels_for,
    losses_beside,
    names_network,
    sample_labels,
    scales_to_compare_with,
    source,
)
from elslightning.cli.creating import create as created_by
from elslightning.cli.creating import write_all
from elslightning.cli.expecting import expect, expect_training
from elslightning.cli.preflight import Parts, check
from elslightning.data import ImageDataModule, Split
from elslightning.diffusion.sampling import sample as draw
from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import ParameterTable
from elslightning.measurement.consistency import consistency
from elslightning.measurement.creation import Creation
from elslightning.measurement.doubts import doubts
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result, Samples
from elslightning.networks import NetworkDenoiser, ScheduledDenoiser
from elslightning.report import figures
from elslightning.runs.belonging import FILES, checksums, configuration_checksums
from elslightning.runs.checkpoints import find_checkpoint, written_checkpoint
from elslightning.runs.configuration import inheritance, overrides_given, primitives
from elslightning.runs.layout import FIGURES
from elslightning.runs.provenance import describe, finish, other_data, wandb_identity, write_record
from elslightning.runs.targets import build, trusting
from elslightning.runs.writing import write
from elslightning.system.errors import InputError, note, warn
from elslightning.system.keeping import KEPT, Kept
from elslightning.system.progress import Bars
from elslightning.system.signals import STOPS, undisguised
from elslightning.training.comparing import ELSComparison, Place
from elslightning.training.finite import FiniteCheck
from elslightning.training.launch import check_launch, lost_named
from elslightning.training.loggers import build_loggers, identify, session
from elslightning.training.record import RunRecord
from elslightning.training.resuming import (
    Losses,
    RandomState,
    Stand,
    keep_metrics,
    preempted,
    refuse_other_data,
    requeued,
    resumed,
)
from elslightning.training.task import DenoisingTask
from elslightning.training.writers import WholeCheckpoints


def run(cfg: DictConfig, directory: Path) -> Result | Samples | Creation | None:
    """Does what `cfg.verb` says; returns what it found, if anything.

    Raises:
        InputError: in one line, for what the configuration or its files do not allow.
    """
    verb = HydraConfig.get().job.config_name
    if cfg.verb != verb:
        raise InputError(f"the configuration is for elslightning {cfg.verb}, and does not work with {verb}")
    with trusting(cfg.trust):
        parts = check(cfg)
        _warn_of(parts.doubts)
        return VERBS[cfg.verb](cfg, directory, parts)


def train(cfg: DictConfig, directory: Path, parts: Parts) -> Result | None:
    """Trains, and then calibrates and compares unless `compare=false`. Returns what the comparison found.

    With `resume`, and for a job that SLURM has started again, `directory` is that of an earlier training, which goes on
    from its last checkpoint.
    """
    stand: Stand | None = None
    data_changed = cfg.data_changed
    if cfg.resume is not None or requeued(directory):
        cfg, stand = resumed(cfg, directory)
        parts = check(cfg)  # again, for it is the configuration of that training now
    training = parts.training
    assert training is not None
    check_launch(training.trainer)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = parts.data
    _load(data)
    if stand is not None and not data_changed:
        refuse_other_data(stand, directory, data.checksum())
    network = NetworkDenoiser(build(cfg.denoiser), parts.schedule)
    keep = Kept(directory / KEPT)
    measurement = _measurement(cfg, parts, keep=keep)
    measurement.check(network, data.train_images, data.train_labels, network.schedule)
    expect_training(cfg, parts, network, measurement, 0 if stand is None else stand.step)
    task = DenoisingTask(
        network,
        network.schedule,
        optimizer=training.optimizer,
        scheduler=training.scheduler,
        seed=cfg.seed,
        config=inheritance(cfg),
    )
    # The comparison stands before weight averaging, so that it sees the averaged weights.
    comparison = ELSComparison(measurement, directory, checked=True)
    config = primitives(cfg)
    identity = (wandb_identity(directory) if stand else None) or identify(directory)
    # Lightning refuses a bar where none is wanted, and has no use for loggers in a trial.
    shown = cfg.trainer.get("enable_progress_bar", True)
    trial = bool(cfg.trainer.get("fast_dev_run", False))
    loggers = build_loggers({} if trial else config.get("logger") or {}, directory, identity)
    wandb = identity if any(hasattr(logger, "use_artifact") for logger in loggers) else None
    about = {"seed": cfg.seed, "data": data, "overrides": overrides_given(), "wandb": wandb}
    record = RunRecord(directory, config, resumed=stand is not None, **about)
    own = [record, RandomState(), Losses(), FiniteCheck(), *([comparison] if cfg.compare else [])]
    with session(directory, loggers):
        callbacks = [*own, *(part for part in training.callbacks if shown or not isinstance(part, ProgressBar))]
        trainer = build(cfg.trainer, callbacks=callbacks, logger=loggers, plugins=[WholeCheckpoints()])
        if stand is not None:
            keep_metrics(loggers, directory, stand)
        try:
            with undisguised(), lost_named(trainer, lambda: _how_to_go_on(directory, trainer, stand)):
                if stand is not None and stand.trained:
                    # The trainer would not swap in the averaged weights if there is nothing left to train.
                    task.load_state_dict(stand.checkpoint["state_dict"])
                    comparison.load_state_dict(stand.checkpoint["callbacks"]["ELSComparison"])
                    device = trainer.strategy.root_device
                    comparison.conclude(task.to(device), data, Place(device, stand.step, loggers, first=not follows()))
                else:
                    checkpoint = find_checkpoint(directory) if stand else None
                    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        except STOPS as stop:
            stop.add_note(_how_to_go_on(directory, trainer, stand))
            raise
    if not follows():
        _report(cfg, directory)
        keep.clear()  # before: nothing goes on with a run that says that it is finished, and nothing would clear it
        finish(directory)
        for path in preempted(directory):
            path.unlink()
    return comparison.result


def _how_to_go_on(directory: Path, trainer: pl.Trainer, stand: Stand | None) -> str:
    """What to do after a training was stopped."""
    if stand is None and written_checkpoint(trainer) is None:
        return "there is no checkpoint to go on from"
    return f"go on with: elslightning train {shlex.quote(f'resume={directory}')}"


def calibrate(cfg: DictConfig, directory: Path, parts: Parts) -> Result:
    """Calibrates every machine that has scales against the network of a checkpoint, or on held-out images alone."""
    network: ScheduledDenoiser | None = None
    trained_on: str | None = None
    if names_network(cfg):
        network, parts, trained_on = _network_and_parts(cfg)
    data = parts.data
    _load(data)
    if network is None:
        labels, schedule = labels_for(data, cfg.conditional), parts.schedule
    else:
        labels, schedule = data.train_labels, network.schedule
    measurement = _measurement(cfg, parts, keep=Kept(directory / KEPT))
    measurement.check(network, data.train_images, labels, schedule)
    device, images = find_device(cfg.device), data.train_images
    record = _describe(cfg, directory, data, device, trained_on)
    if network is None:  # nothing else says where to work
        images = images.to(device)
    else:
        network.to(device)
    expect(cfg, measurement, network, data, labels, compared=False)
    result = measurement.calibrate(network, images, labels, schedule, Bars())
    return _written(result, cfg, directory, record, measurement.comparison.schedule(schedule))


def compare(cfg: DictConfig, directory: Path, parts: Parts) -> Result:
    """Compares the machines with the network of a checkpoint."""
    network, parts, trained_on = _network_and_parts(cfg)
    data = parts.data
    _load(data)
    measurement = _measurement(cfg, parts, scales_to_compare_with(cfg), Kept(directory / KEPT))
    device = find_device(cfg.device)
    record = _describe(cfg, directory, data, device, trained_on)
    expect(cfg, measurement, network.to(device), data, data.train_labels, compared=True)
    result = measurement.run(network, data.train_images, data.train_labels, network.schedule, Bars())
    result = replace(result, losses=losses_beside(cfg.checkpoint))
    return _written(result, cfg, directory, record, measurement.comparison.schedule(network.schedule))


def _written(result: Result, cfg: DictConfig, directory: Path, record: dict[str, Any], schedule: Schedule) -> Result:
    """The result, after its files are written and what is doubtful about it is said."""
    write_record(directory, record)
    written = write(result, directory)
    if result.comparison is None:  # there is no summary that could say what belongs together
        write_record(directory, record | {FILES: record[FILES] | checksums(written)})
    figures.save_all(figures.of_result(result, schedule), directory)
    Kept(directory / KEPT).clear()
    _warn_of(doubts(result))
    _report(cfg, directory)
    return result


def _load(data: ImageDataModule) -> None:
    """Loads the data, and says what was understood of them."""
    data.setup()
    if data.about and not follows():
        note(data.about)
    _warn_of(data.doubts)


def _warn_of(lines: Iterable[str]) -> None:
    if not follows():  # the first process says it
        for line in lines:
            warn(line)


def sample(cfg: DictConfig, directory: Path, parts: Parts) -> Samples:
    """Draws samples from a network or a machine, and measures the consistency of a machine's."""
    device = find_device(cfg.device)
    network: ScheduledDenoiser | None = None
    trained_on: str | None = None
    if names_network(cfg):
        network, parts, trained_on = _network_and_parts(cfg)
    data = parts.data
    _load(data)
    denoiser = source(cfg, network, data, parts.machines)
    generator = torch.Generator().manual_seed(cfg.seed)
    noise = torch.randn(cfg.num_samples, *data.train_images.shape[1:], generator=generator)
    labels = sample_labels(cfg, denoiser, data)
    classes = None if labels is None else labels.to(device)
    record = _describe(cfg, directory, data, device, trained_on)
    samples = draw(
        denoiser.to(device),
        noise.to(device),
        parts.schedule,
        cfg.steps,
        classes,
        what=f"sampling {cfg.source}",
        progress=Bars(),
    )
    shares = None if denoiser.learned else consistency(samples, denoiser, classes)
    drawn = Samples(cfg.source, cfg.steps, samples.cpu(), labels, shares)
    write_record(directory, record)
    write(drawn, directory)
    figures.save(figures.first_samples(drawn.samples), directory / FIGURES / "samples.png")
    return drawn


def create(cfg: DictConfig, directory: Path, parts: Parts) -> Creation:
    """Makes images in the manner of the data, without a network, and measures how new they are."""
    data = parts.data
    _load(data)
    record = _describe(cfg, directory, data, find_device(cfg.device))
    created = created_by(cfg, parts)
    write_record(directory, record)
    write_all(created, parts.schedule, directory)
    return created


def _network_and_parts(cfg: DictConfig) -> tuple[ScheduledDenoiser, Parts, str | None]:
    """The network of `checkpoint` or `network`, and what `cfg`, completed by the run that made it, names; and the
    checksum of the images it was trained on, see `find_network`."""
    network, trained_on = find_network(cfg)
    parts = check(cfg, network)  # again, for the sections are those of the checkpoint now
    _warn_of(parts.doubts)
    return network, parts, trained_on


def _measurement(
    cfg: DictConfig, parts: Parts, scales: Mapping[str, ParameterTable] | None = None, keep: Kept | None = None
) -> Measurement:
    """The measurement of a configuration, once its data are loaded; without `scales` it calibrates."""
    return Measurement(
        machines=parts.machines,
        calibration=parts.calibration,
        comparison=parts.comparison,
        seed=cfg.seed,
        scales=scales,
        heldout=Split(parts.data.val_images, parts.data.val_labels),
        shard_bank=cfg.get("shard_bank", False),
        keep=keep,
    )


def _report(cfg: DictConfig, directory: Path) -> None:
    """Writes the report, unless `report=false`; the results stand without it."""
    if not cfg.get("report", True):
        return
    from elslightning.report.page.page import write_report

    try:
        write_report(directory, progress=Bars())
    except InputError as error:
        warn(f"there is no report: {error}")


def _describe(
    cfg: DictConfig, directory: Path, data: ImageDataModule, device: torch.device, trained_on: str | None = None
) -> dict[str, Any]:
    """What run.json says: taken before the work begins, and written with its results."""
    record = describe(seed=cfg.seed, data=data, device=device, overrides=overrides_given())
    record[FILES] = configuration_checksums(directory)
    if trained_on is None:
        return record
    record["trained_on_sha256"] = trained_on
    if (doubt := other_data(record)) is not None and not cfg.data_changed:
        _warn_of([f"{doubt} (data_changed=true says that this is known)"])
    return record


VERBS: dict[str, Callable[[DictConfig, Path, Parts], Result | Samples | Creation | None]] = {
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
    "sample": sample,
    "create": create,
}
