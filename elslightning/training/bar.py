"""The progress bar of a training."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from elslightning.system.progress import bar, left

COUNTED = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class FitProgress(ProgressBar):
    """One bar for the whole training, with the losses and the time left, instead of one per epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._losses: list[str] = []
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._enabled:
            total = trainer.estimated_stepping_batches
            self._bar = bar(
                total=int(total) if total != float("inf") else None,
                initial=trainer.global_step,
                desc="training",
                bar_format=COUNTED,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            share = trainer.global_step / self._bar.total if self._bar.total else 0.0
            # First what fits on a narrow terminal.
            said = [left("training", share), *self._losses]
            self._bar.set_postfix_str(", ".join(part for part in said if part), refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._losses = [
                f"{name}={float(value):.4f}"
                for name, value in trainer.callback_metrics.items()
                if name in ("train/loss", "val/loss")
            ]
            self._bar.set_postfix_str(", ".join(self._losses), refresh=False)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
