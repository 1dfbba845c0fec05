"""Resuming: a training that was interrupted goes on in its own directory as if it never had been."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf

from elslightning.checkpoints import read_checkpoint
from elslightning.errors import InputError


class RandomState(pl.Callback):
    """Keeps the state of torch's global generator, which shuffles the batches, in the checkpoints.

    Processes of a distributed training shuffle by epoch; for them it makes no difference.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.set_rng_state(state_dict["torch"])


def resumed(cfg: DictConfig, directory: Path) -> tuple[DictConfig, int]:
    """The configuration of the training in `directory`, and the number of optimizer steps it has taken.

    Args:
        cfg: composed from what the command line of that training set, and what this one does.
        directory: of the run.

    Raises:
        InputError: if there is no such training, it has no checkpoint, or cannot go on from it.
    """
    saved = OmegaConf.load(directory / ".hydra" / "config.yaml")
    if not isinstance(saved, DictConfig) or saved.get("verb") != "train":
        raise InputError(f"resume={directory} is not the directory of a training")
    keys = [word.lstrip("+~").split("=", 1)[0] for word in sys.argv[2:]]
    if any(key.split(".")[0] == "logger" for key in keys):
        saved.logger = cfg.logger
    epochs = saved.trainer.max_epochs
    if "trainer.max_epochs" in keys:
        saved.trainer.max_epochs = cfg.trainer.max_epochs
        if cfg.trainer.max_epochs != epochs and str(saved.scheduler.get("_target_")).endswith(".one_cycle"):
            raise InputError(f"trainer.max_epochs must stay {epochs}: scheduler=one_cycle was made for as many")
    content = read_checkpoint(directory)
    step, done = int(content.get("global_step", 0)), int(content.get("epoch", -1)) + 1
    for taken, wanted, what in (
        (done, saved.trainer.max_epochs, "epochs"),
        (step, saved.trainer.get("max_steps", -1), "steps"),
    ):
        # Lightning would not swap in the averaged weights if there is nothing left to train.
        if 0 <= wanted <= taken:
            raise InputError(
                f"resume={directory}: {taken} of {wanted} {what} are done; set trainer.max_epochs to go on, "
                f"or compare again with elslightning compare checkpoint={directory}"
            )
    return saved, step


def keep_metrics(loggers: Iterable[Logger], directory: Path, step: int) -> None:
    """Keeps the rows of metrics.csv up to a step, which the logger would otherwise begin anew."""
    path = directory / "metrics.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            # Making the writer takes the file away.
            logger.experiment.metrics = [row for row in rows if int(row["step"]) <= step]
            logger.save()
