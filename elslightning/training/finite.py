"""Stopping a training that came to numbers that are not finite, before they reach a checkpoint."""

from typing import Any

import lightning.pytorch as pl
import torch

from elslightning.runs.checkpoints import written_checkpoint
from elslightning.system.errors import DivergedError
from elslightning.training.task import DenoisingTask


class FiniteCheck(pl.Callback):
    """Ends a training with one line when a loss or a weight is not finite.

    The loss is looked at after every step, by all processes together; the weights at the end of every epoch, before
    checkpoints are written, which Lightning does last.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raises DivergedError, in every process, if the loss of one of them is not finite."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        finite = bool(torch.isfinite(loss).all())
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            which = f"the loss is {float(loss)}" if not finite else "the loss of another process is not finite"
            raise DivergedError(f"{which} in step {trainer.global_step}{_times(pl_module)}{_what_is_left(trainer)}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises DivergedError if a weight is not finite."""
        # One number for all weights: a look at each would wait for the device as often.
        largest = [parameter.detach().abs().max() for parameter in pl_module.parameters() if parameter.numel()]
        if not largest or bool(torch.stack([value.double() for value in largest]).isfinite().all()):
            return
        name = next(name for name, parameter in pl_module.named_parameters() if not bool(parameter.isfinite().all()))
        raise DivergedError(
            f"weights are not finite after step {trainer.global_step}, first in {name}"
            f"{_times(pl_module)}{_what_is_left(trainer)}"
        )


def _times(pl_module: pl.LightningModule) -> str:
    times = pl_module.time_range if isinstance(pl_module, DenoisingTask) else None
    return "" if times is None else f", whose batch had times t from {times[0]:.4g} to {times[1]:.4g}"


def _what_is_left(trainer: pl.Trainer) -> str:
    path = written_checkpoint(trainer)
    left = "no checkpoint was written" if path is None else f"the last good checkpoint is {path}"
    return f"; {left}; a smaller learning rate may help"
