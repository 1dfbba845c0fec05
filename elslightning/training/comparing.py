"""ELSComparison: the measurement as a validation callback."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

from elslightning.diffusion.shapes import no_progress
from elslightning.measurement.doubts import doubts
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result
from elslightning.report import figures
from elslightning.runs.layout import FIGURES, SCALES
from elslightning.runs.metrics import LOSSES
from elslightning.runs.writing import write
from elslightning.system.errors import InputError, warn
from elslightning.system.processes import ALONE, Processes, all_or_none
from elslightning.system.progress import Bars
from elslightning.training.layout import laid_as_loaded
from elslightning.training.loggers import log_figure, log_file, log_lines, log_table
from elslightning.training.task import DenoisingTask


class Place(NamedTuple):
    """Where a measurement is done: its device, the step of the training, who is told, and the processes that share it,
    of which the first one writes."""

    device: torch.device
    step: int
    loggers: Sequence[Logger]
    first: bool = True
    processes: Processes = ALONE


class ELSComparison(pl.Callback):
    """Calibrates the machines against the network and compares them, while training and at its end.

    The network is the one validation sees: place this before a weight-averaging callback in the list of
    callbacks, and it is the averaged one. The training images are those of the trainer's data module. All processes
    share the work and end with the same result, which does not depend on their number, so every one logs the same
    values; the first one writes the files. If one fails, all stop.

    Args:
        measurement: what to calibrate and compare, and how.
        directory: where the files of the last comparison go, see `elslightning.runs.writing.write`.
        show_progress: show bars.
        checked: whether `measurement.check` has let the network and the data pass already; otherwise it is asked before
            the first step.

    Attributes:
        result: the last result, or None.
    """

    def __init__(
        self, measurement: Measurement, directory: str | Path, *, show_progress: bool = True, checked: bool = False
    ) -> None:
        self.measurement = measurement
        self.directory = Path(directory)
        self.show_progress = show_progress
        self.checked = checked
        self.result: Result | None = None
        self._step = -1
        self._history: dict[str, list[tuple[int, float]]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._step, self._history = -1, {}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, for a training that is resumed draws them whole; and the step that was measured last."""
        return {"history": self._history, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history = {name: list(points) for name, points in state_dict["history"].items()}
        self._step = state_dict.get("step", -1)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks, before the first step of training, that the comparison will go through; unless that is known."""
        if self.checked:
            return
        with all_or_none(self._place(trainer).processes.group):
            task, data = self._task(pl_module), self._data(trainer)
            self.measurement.check(task.denoiser, data.train_images, data.train_labels, task.schedule)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets what was kept for the last measurement, which nothing can interrupt any more."""
        if self._step == trainer.global_step and trainer.is_global_zero and self.measurement.keep is not None:
            self.measurement.keep.clear()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in LOSSES:
            if name in trainer.callback_metrics:
                points = self._history.setdefault(name, [])
                points.append((trainer.global_step, float(trainer.callback_metrics[name])))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares every n epochs, and logs the scalars through the module, so that checkpoints can monitor them."""
        every = self.measurement.comparison.every_n_epochs
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fitting and every is not None and (trainer.current_epoch + 1) % every == 0:
            result = self._measure(self._task(pl_module), self._data(trainer), self._place(trainer))
            pl_module.log_dict(result.scalars(), rank_zero_only=False, sync_dist=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares at the end, with the weights that the checkpoint has, unless just done."""
        self.conclude(self._task(pl_module), self._data(trainer), self._place(trainer))

    def conclude(self, task: DenoisingTask, data: Any, place: Place) -> None:
        """What is done when the training is: compares, unless just done, and draws and logs what there is to show,
        and says what is doubtful."""
        logged = self._step == place.step
        if self.result is None or not logged:
            scalars = self._measure(task, data, place).scalars()
            for logger in () if logged else place.loggers:
                logger.log_metrics(scalars, step=place.step)
                logger.save()
        if self._history and place.first:
            figure = figures.losses(self._history)
            figures.save(figure, self.directory / FIGURES / "training.png")
            for logger in place.loggers:
                log_figure(logger, "training", figure, place.step)
        if self.result is not None and place.first:
            self._log_evidence(self.result, place)
            for doubt in doubts(self.result):
                warn(doubt)

    def _measure(self, task: DenoisingTask, data: Any, place: Place) -> Result:
        group = place.processes.group
        bars = Bars() if self.show_progress and place.first else None
        training = task.denoiser.training
        task.denoiser.eval()
        try:
            with laid_as_loaded(task.denoiser), all_or_none(group):
                result = self.measurement.run(
                    task.denoiser,
                    data.train_images,
                    data.train_labels,
                    task.schedule,
                    bars or no_progress,
                    processes=place.processes,
                    checked=True,
                )
            result = replace(result, losses=self._losses_of_earlier_epochs(place.step))
        finally:
            task.denoiser.train(training)
            if bars is not None:
                bars.close()
        self.result, self._step = result, place.step
        with all_or_none(group):
            if place.first:
                drawn = figures.of_result(result, self.measurement.comparison.schedule(task.schedule))
                write(result, self.directory)
                figures.save_all(drawn, self.directory)
                self._log_measured(result, drawn, place)
        return result

    def _losses_of_earlier_epochs(self, step: int) -> dict[str, list[tuple[int, float]]]:
        """The curves without the epoch that is measured, whose losses are known only if it is measured again."""
        return {
            name: [point for point in points if point[0] < step or self._step != step]
            for name, points in self._history.items()
        }

    def _log_measured(self, result: Result, drawn: Mapping[str, Figure], place: Place) -> None:
        for logger in place.loggers:
            for name, figure in drawn.items():
                log_figure(logger, name, figure, place.step)
            log_lines(logger, "patch_size", result.lines(), "step", place.step)

    def _log_evidence(self, result: Result, place: Place) -> None:
        """What is worth logging of the last comparison only: every pair, and the scales as a file."""
        for logger in place.loggers:
            log_table(logger, "pair_table", result.pair_table(self.measurement.seed), place.step)
            if result.scales:
                log_file(logger, self.directory / SCALES, "scales")

    def _place(self, trainer: pl.Trainer) -> Place:
        return Place(
            trainer.strategy.root_device,
            trainer.global_step,
            trainer.loggers,
            trainer.is_global_zero,
            # torch.distributed may know of others than those that train together.
            Processes.world() if trainer.world_size > 1 else ALONE,
        )

    def _task(self, pl_module: pl.LightningModule) -> DenoisingTask:
        if not isinstance(pl_module, DenoisingTask):
            raise InputError(f"ELSComparison compares a DenoisingTask, not a {type(pl_module).__name__}")
        return pl_module

    def _data(self, trainer: pl.Trainer) -> Any:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data is None or not hasattr(data, "train_images"):
            raise InputError("ELSComparison needs a data module with train_images: trainer.fit(task, datamodule)")
        return data
