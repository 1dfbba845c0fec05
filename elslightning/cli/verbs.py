"""What each verb does: compose the parts that a configuration names, and run them."""

import shlex
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig

from elslightning.cli.arguments import follows
from elslightning.cli.chosen import find_device
from elslightning.cli.creating import create as created_by
from elslightning.cli.creating import write_all
from elslightning.cli.expecting import expect_training
from elslightning.cli.measuring import calibrate, compare, sample
from elslightning.cli.preflight import Parts, check
from elslightning.cli.steps import conclude, described, load, measurement_of, tell, warn_of
from elslightning.measurement.creation import Creation
from elslightning.measurement.result import Result, Samples
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.runs.checkpoints import written_checkpoint
from elslightning.runs.configuration import inheritance, overrides_given, primitives
from elslightning.runs.finding import find_checkpoint
from elslightning.runs.provenance import finish, wandb_identity, write_record
from elslightning.runs.targets import build, trusting
from elslightning.system.errors import InputError
from elslightning.system.keeping import KEPT, Kept
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
        warn_of(parts.doubts)
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
    planned = training.trainer
    check_launch(planned.num_devices, planned.num_nodes, getattr(planned.strategy, "cluster_environment", None))
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = parts.data
    load(data)
    if stand is not None and not data_changed:
        refuse_other_data(stand, directory, data.checksum())
    network = NetworkDenoiser(build(cfg.denoiser), parts.schedule)
    keep = Kept(directory / KEPT)
    measurement = measurement_of(cfg, parts, keep=keep)
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
        conclude(comparison.result, cfg, directory)
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


def create(cfg: DictConfig, directory: Path, parts: Parts) -> Creation:
    """Makes images in the manner of the data, without a network, and measures how new they are."""
    data = parts.data
    load(data)
    record = described(cfg, directory, data, find_device(cfg.device))
    created = created_by(cfg, parts)
    write_record(directory, record)
    write_all(created, parts.schedule, directory)
    tell(created)
    return created


VERBS: dict[str, Callable[[DictConfig, Path, Parts], Result | Samples | Creation | None]] = {
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
    "sample": sample,
    "create": create,
}
