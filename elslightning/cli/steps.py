"""Steps that all verbs take, the first process alone: loading data, describing runs, saying what is found."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from elslightning.cli.arguments import follows
from elslightning.cli.preflight import Parts
from elslightning.data.module import ImageDataModule
from elslightning.data.request import Split
from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.parameters import ParameterTable
from elslightning.measurement.creation import Creation
from elslightning.measurement.measurement import Measurement
from elslightning.measurement.result import Result, Samples
from elslightning.runs.belonging import FILES, configuration_checksums
from elslightning.runs.configuration import overrides_given
from elslightning.runs.provenance import describe, other_data
from elslightning.system.errors import InputError, note, warn
from elslightning.system.keeping import Kept
from elslightning.system.progress import Bars


def load(data: ImageDataModule) -> None:
    """Loads the data, and says what was understood of them."""
    data.setup()
    if data.about and not follows():
        note(data.about)
    warn_of(data.doubts)


def warn_of(lines: Iterable[str]) -> None:
    if not follows():  # the first process says it
        for line in lines:
            warn(line)


def measurement_of(
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


def tell(found: Result | Samples | Creation | None) -> None:
    """Prints what a verb found, on the first process; before the report, which takes a while."""
    if not follows() and found is not None and (text := found.text()):
        print(text, flush=True)


def conclude(found: Result | None, cfg: DictConfig, directory: Path) -> None:
    """Prints what was found, and then writes the report, unless `report=false`; the results stand without it."""
    tell(found)
    if not cfg.get("report", True):
        return
    from elslightning.report.page.page import write_report

    try:
        write_report(directory, progress=Bars())
    except InputError as error:
        warn(f"there is no report: {error}")


def described(
    cfg: DictConfig, directory: Path, data: ImageDataModule, device: torch.device, trained_on: str | None = None
) -> dict[str, Any]:
    """What run.json says: taken before the work begins, and written with its results."""
    record = describe(seed=cfg.seed, data=data, device=device, overrides=overrides_given())
    record[FILES] = configuration_checksums(directory)
    if trained_on is None:
        return record
    record["trained_on_sha256"] = trained_on
    if (doubt := other_data(record)) is not None and not cfg.data_changed:
        warn_of([f"{doubt} (data_changed=true says that this is known)"])
    return record


def bars() -> Progress:
    """Bars of the first process."""
    return no_progress if follows() else Bars()
