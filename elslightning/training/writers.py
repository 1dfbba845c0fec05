"""What Lightning writes into a run directory, but whole or not at all: checkpoints and metrics.csv.

Its own checkpoints are written to the system's temporary folder and moved: onto another file system, that is a copy,
and may end in the middle. Its metrics.csv is written in place.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from elslightning.runs.metrics import CHECK, checked_row
from elslightning.system.files import replacing, write_csv


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place, and then renames them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch.save on a full disk does not say that it is full
        torch.save(checkpoint, content)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())


class MetricsFile(CSVLogger):
    """Writes metrics.csv, a row per logged step; arguments as Lightning's CSVLogger."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _Rows(ExperimentWriter):
    """All rows so far; each save writes them all, each with its checksum."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir=log_dir)
        self.saved: list[Mapping[str, Any]] = []

    def _check_log_dir_exists(self) -> None:
        """Lightning takes an earlier file away here; ours stays until there is another in its place."""

    def save(self) -> None:
        if not self.metrics:
            return
        self.saved += self.metrics
        self.metrics = []
        keys = [*sorted(set().union(*self.saved)), CHECK]
        rows = map(checked_row, self.saved)
        write_csv(self.metrics_file_path, ({key: row.get(key) for key in keys} for row in rows))
