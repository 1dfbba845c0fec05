"""Resuming: a training that was interrupted goes on in its own directory as if it never had been."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from omegaconf import DictConfig, OmegaConf

from elslightning.runs.checkpoints import read_checkpoint
from elslightning.runs.configuration import keys_of
from elslightning.runs.layout import CHECKPOINT, CONFIG, METRICS
from elslightning.runs.metrics import STEP, read_metrics
from elslightning.runs.paths import make_full
from elslightning.runs.provenance import data_of, is_finished
from elslightning.runs.run import started_in
from elslightning.runs.targets import at_present
from elslightning.system.errors import InputError
from elslightning.system.files import read_config


class RandomState(pl.Callback):
    """Keeps the state of torch's global generator, which shuffles the batches, in the checkpoints.

    Processes of a distributed training shuffle by epoch; for them it makes no difference.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.set_rng_state(state_dict["torch"])


class Losses(pl.Callback):
    """Keeps what an epoch of training has found in its checkpoint: Lightning logs it after that is written."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        checkpoint["elslightning_epoch"] = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1, **found}


class Stand(NamedTuple):
    """How far a training has come: its optimizer steps, its last checkpoint, and whether only the comparison lacks."""

    step: int
    checkpoint: dict[str, Any]
    trained: bool


def resumed(cfg: DictConfig, directory: Path) -> tuple[DictConfig, Stand]:
    """The configuration of the training in `directory`, and how far it has come.

    Args:
        cfg: composed from what the command line of that training set, and what this one does.
        directory: of the run.

    Raises:
        InputError: if there is no such training, it has no checkpoint, cannot go on from it, or is finished.
    """
    saved = read_config(directory / CONFIG)
    if not isinstance(saved, DictConfig) or saved.get("verb") != "train":
        raise InputError(f"resume={directory} is not the directory of a training")
    saved = OmegaConf.create(at_present(OmegaConf.to_container(saved, resolve=False)))
    make_full(saved, started_in(directory))
    keys = keys_of(sys.argv[2:])
    saved.trust = cfg.trust
    if "data.root" in keys:
        saved.data.root = cfg.data.root
    if any(key.split(".")[0] == "logger" for key in keys):
        saved.logger = cfg.logger
    epochs = saved.trainer.max_epochs
    if "trainer.max_epochs" in keys:
        saved.trainer.max_epochs = cfg.trainer.max_epochs
        if cfg.trainer.max_epochs != epochs and str(saved.scheduler.get("_target_")).endswith(".one_cycle"):
            raise InputError(f"trainer.max_epochs must stay {epochs}: scheduler=one_cycle was made for as many")
    # What was asked for then is not asked for now.
    if "data" in saved:
        saved.data.pop("download", None)
        if "data.download" in keys:
            saved.data.download = cfg.data.download
    content = read_checkpoint(directory)
    if (batch := _in_the_midst(content)) is not None:
        raise InputError(
            f"resume={directory}: its last checkpoint is from the midst of an epoch, after batch {batch}, and the rest "
            "of that epoch would see other images: let checkpoints be written at the end of epochs"
        )
    step, done = int(content.get("global_step", 0)), int(content.get("epoch", -1)) + 1
    for taken, wanted, what in (
        (done, saved.trainer.max_epochs, "epochs"),
        (step, saved.trainer.get("max_steps", -1), "steps"),
    ):
        if 0 <= wanted <= taken:
            if saved.compare and not is_finished(directory):
                return saved, Stand(step, content, trained=True)
            raise InputError(
                f"resume={directory}: {taken} of {wanted} {what} are done; set trainer.max_epochs to go on, "
                f"or compare again with elslightning compare checkpoint={directory}"
            )
    if (ended := _ended_early(content)) is not None or (is_finished(directory) and "trainer.max_epochs" not in keys):
        if saved.compare and not is_finished(directory):
            return saved, Stand(step, content, trained=True)
        raise InputError(
            f"resume={directory}: {ended or 'the training ended'} after {done} epochs; compare again with elslightning "
            f"compare checkpoint={directory}"
        )
    return saved, Stand(step, content, trained=False)


def _in_the_midst(content: dict[str, Any]) -> int | None:
    """After which batch a checkpoint was written, counted from 1; None at the end of an epoch."""
    try:
        progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        current = progress["current"]
        whole = progress["is_last_batch"] and current["completed"] == current["processed"]
        return None if whole or not current["processed"] else int(current["processed"])
    except (KeyError, TypeError):
        return None


def _ended_early(content: dict[str, Any]) -> str | None:
    """What has ended a training before its last epoch; None if nothing has."""
    for name, state in content.get("callbacks", {}).items():
        if str(name).startswith("EarlyStopping") and isinstance(state, dict):
            waited, patience = state.get("wait_count", 0), state.get("patience", math.inf)
            if state.get("stopped_epoch") or waited >= patience:
                return "EarlyStopping ended the training"
    return None


def refuse_other_data(stand: Stand, directory: Path, checksum: str) -> None:
    """Raises InputError unless these are the images that a training went on with last, as far as that is known."""
    known = stand.checkpoint["elslightning"].get("data_sha256") or data_of(directory)
    if known is not None and known != checksum:
        raise InputError(
            f"resume={directory}: the images are not those that the training began with, for their checksum is "
            f"{checksum[:12]}, not {str(known)[:12]}: put those back, or say data_changed=true"
        )


def requeued(directory: Path) -> bool:
    """Whether SLURM has started a training again that it had preempted, and that has finished an epoch.

    Lightning, told by SLURM's signal, saves `hpc_ckpt_<n>.ckpt` in the midst of an epoch and asks for the job again. To
    end with the weights of a training that nothing interrupted, it goes on from the last whole epoch instead.
    """
    return SLURMEnvironment.detect() and bool(preempted(directory)) and (directory / CHECKPOINT).is_file()


def preempted(directory: Path) -> list[Path]:
    """What Lightning saves of a training that SLURM preempts."""
    return sorted(directory.glob("hpc_ckpt_*.ckpt"))


def keep_metrics(loggers: Iterable[Logger], directory: Path, stand: Stand) -> None:
    """Keeps the rows of metrics.csv up to a checkpoint, which the logger would otherwise begin anew."""
    rows: list[dict[str, Any]] = [*read_metrics(directory / METRICS)]
    # What was logged after the last step comes from a comparison that is done again.
    rows = [row for row in rows if int(row[STEP]) < stand.step + (not stand.trained)]
    epoch = stand.checkpoint.get("elslightning_epoch", {})
    if not any(epoch.keys() <= row.keys() and int(row[STEP]) == epoch[STEP] for row in rows) and epoch:
        rows.append(epoch)
    for logger in loggers:
        if isinstance(logger, CSVLogger) and rows:
            logger.experiment.metrics = rows
            logger.save()
