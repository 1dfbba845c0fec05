"""What a run found, written into its directory; `elslightning.runs.run.read_run` is the inverse."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elslightning.machines.scales import save_scales
from elslightning.measurement.agreement import median_interval
from elslightning.measurement.creation import Creation
from elslightning.measurement.doubts import doubts
from elslightning.measurement.result import Result, Samples
from elslightning.runs import contents, layout
from elslightning.runs.belonging import FILES, checksum, sealed
from elslightning.system.files import replacing, write_arrays, write_csv, write_json


def write(found: Result | Samples | Creation, directory: str | Path) -> list[Path]:
    """Writes what a run found; returns the paths.

    Of a measurement, what there is of scales.json, calibration.csv, receptive_field.csv and .npz, comparison.csv,
    consistency.csv, handover.csv, stepwise.csv, summary.json and samples.npz. Of samples, samples.npz (arrays samples,
    labels), and for those of a machine summary.json. Of a creation, scales.json, novelty.csv, order.csv, summary.json
    and samples.npz, the samples of all settings one after the other.

    All are written before the first takes its name, and a summary, with the checksums of the others, takes it first: of
    a process that is killed in between, or of a full disk, no files stay that could be taken for those of one run.
    """
    if isinstance(found, Creation):
        files = dict(_of_creation(found))
    else:
        files = dict(_of_samples(found) if isinstance(found, Samples) else _of_result(found))
    summary = files.pop(layout.SUMMARY, None)
    written: dict[Path, Path] = {}
    with ExitStack() as renaming:
        for name, content in files.items():
            path = Path(directory) / name
            written[path] = renaming.enter_context(replacing(path))
            _write(written[path], name, content)
        if summary is not None:
            path = Path(directory) / layout.SUMMARY
            known = {path.name: checksum(temporary) for path, temporary in written.items()}
            written[path] = renaming.enter_context(replacing(path))
            write_json(written[path], sealed(summary | {FILES: known}))
    return list(written)


def _write(path: Path, name: str, content: Any) -> None:
    if name.endswith(".csv"):
        write_csv(path, content)
    elif name.endswith(".npz"):
        write_arrays(path, content)
    else:
        save_scales(path, content)


def _of_result(result: Result) -> Mapping[str, Any]:
    """The content of every file of a measurement, in the order in which they are written."""
    files: dict[str, Any] = {}
    if result.scales:
        files[layout.SCALES] = result.scales
    if result.calibrations:
        files[layout.CALIBRATION] = contents.calibration_rows(result.calibrations)
    if result.gradients is not None:
        files[layout.RECEPTIVE_FIELD] = contents.receptive_field_rows(result.gradients)
        files[layout.GRADIENTS] = contents.gradient_arrays(result.gradients)
    if result.comparison is not None:
        files[layout.COMPARISON] = result.comparison.rows
        if result.comparison.consistency:
            files[layout.CONSISTENCY] = result.comparison.consistency
        if result.comparison.handover:
            files[layout.HANDOVER] = result.comparison.handover
        if result.comparison.stepwise:
            files[layout.STEPWISE] = result.comparison.stepwise
        files[layout.SUMMARY] = _summary(result)
        if images := contents.sample_arrays(result.comparison):
            files[layout.SAMPLES] = images
    return files


def _summary(result: Result) -> Mapping[str, Any]:
    """The summary and what is doubtful about it; the doubts of runs of 0.1 stay where they were, in its output."""
    assert result.comparison is not None
    said = {"doubts": doubts(result)} if result.comparison.further else {}
    return result.comparison.summary() | said


def _of_samples(drawn: Samples) -> Mapping[str, Any]:
    arrays: dict[str, Tensor] = {"samples": drawn.samples} | ({} if drawn.labels is None else {"labels": drawn.labels})
    if drawn.consistency is None:
        return {layout.SAMPLES: arrays}
    median, low, high = median_interval(drawn.consistency)
    summary: dict[str, Any] = {"samples": len(drawn.samples), "source": drawn.source, "steps": drawn.steps}
    return {
        layout.SAMPLES: arrays,
        layout.SUMMARY: summary | {"consistency": {"median": median, "low": low, "high": high}},
    }


def _of_creation(created: Creation) -> Mapping[str, Any]:
    files: dict[str, Any] = {layout.SCALES: created.scales} if created.scales else {}
    orders = [(made.setting, made.order) for made in created.dial if made.order is not None]
    if orders:
        files[layout.ORDER] = [{"setting": setting} | row for setting, order in orders for row in order.rows()]
    return files | {
        layout.NOVELTY: created.rows(),
        layout.SUMMARY: created.summary(),
        layout.SAMPLES: {"samples": torch.cat([made.samples for made in created.dial])},
    }
