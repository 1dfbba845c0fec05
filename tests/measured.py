"""Trainings that a small measurement watches, without the command line."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from tiny import digits, network, trainer

from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.settings import CalibrationSettings, ComparisonSettings
from elslightning.training.comparing import ELSComparison
from elslightning.training.task import DenoisingTask


def real(**options) -> Measurement:
    """A measurement of two machines on three pairs."""
    settings = {
        "machines": {"bbels": BoundaryBrokenScoreMachine, "is": IdealScoreMachine},
        "calibration": CalibrationSettings(steps=2, patch_sizes=(3, 5), num_samples=2),
        "comparison": ComparisonSettings(steps=2, network_steps=2, num_pairs=3),
    }
    return Measurement(**(settings | options))


def comparison(measurement: Measurement, directory: Path) -> ELSComparison:
    return ELSComparison(measurement, directory, show_progress=False)


def fit(directory: Path, callbacks, data=None, denoiser=None, **options) -> pl.Trainer:
    fitter = trainer(directory, callbacks=callbacks, **options)
    fitter.fit(DenoisingTask(denoiser or network()), data or digits())
    return fitter


class Plain(Logger):
    """A logger that takes scalars and nothing else."""

    name, version = "plain", 0

    def __init__(self):
        super().__init__()
        self.scalars, self.images = [], []

    def log_metrics(self, metrics, step=None):
        self.scalars.append((dict(metrics), step))

    def log_hyperparams(self, *arguments, **options):
        pass
