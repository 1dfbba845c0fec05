"""RunRecord: writes run.json when training starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from elslightning.runs.belonging import FILES, configuration_checksums
from elslightning.runs.provenance import describe, read_record, write_record
from elslightning.training.loggers import log_config


class RunRecord(pl.Callback):
    """Writes run.json when training starts, and hands loggers the configuration.

    No sooner, for a run that is refused leaves its directory as it was. A training that is resumed keeps what stands
    there, and adds how it goes on to the list `resumed`.

    Args:
        directory: of the run.
        config: its configuration, resolved.
        resumed: whether an earlier training goes on.
        description: arguments of `describe`, but for what the trainer knows.
    """

    def __init__(
        self, directory: Path, config: Mapping[str, Any], *, resumed: bool = False, **description: Any
    ) -> None:
        self.directory = directory
        self.config = config
        self.resumed = resumed
        self.description = description

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        device = trainer.strategy.root_device
        content = describe(device=device, processes=trainer.world_size, **self.description)
        if self.resumed and (earlier := read_record(self.directory)):
            content = earlier | {"finished": None, "resumed": [*earlier.get("resumed", []), content]}
        write_record(self.directory, content | {FILES: configuration_checksums(self.directory)})
        for logger in trainer.loggers:
            log_config(logger, self.config)
