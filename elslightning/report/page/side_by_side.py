"""Several runs in one page: their results beside each other, and where their settings differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from elslightning.machines.parameters import PATCH_SIZE
from elslightning.machines.registry import display_name
from elslightning.measurement.table import ABSENT
from elslightning.report import figures
from elslightning.report.page import tables
from elslightning.report.page.markdown import document
from elslightning.report.page.page import render
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.tables import Table
from elslightning.runs.experiment import open_run
from elslightning.runs.run import Run
from elslightning.system.errors import InputError
from elslightning.system.files import write_text

IGNORED = ("paths", "callbacks", "logger", "hydra", "checkpoint", "device", "resume", "verb")
"""Sections of the configuration that say where and how a run ran, and not what."""


def write_comparison(run_dirs: Sequence[str | Path], path: str | Path) -> list[Path]:
    """Writes several finished runs side by side: medians, patch sizes, settings that differ, and a figure.

    Args:
        run_dirs: at least two run directories of `train` or `compare`, in the order they are shown.
        path: the page, ending in .html; the same tables as Markdown go beside it, ending in .md.

    Raises:
        InputError: for fewer than two runs, one that compared nothing, a path with another ending, and as
            `elslightning.report.write_report`.

    Returns:
        The two paths.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise InputError(f"the comparison of runs is a page, so its path must end in .html, not {path.name}")
    if len(run_dirs) < 2:
        raise InputError(f"a comparison of runs needs at least 2, not {len(run_dirs)}")
    runs, compared = [open_run(directory) for directory in run_dirs], []
    for run in runs:
        if run.comparison is None or run.reference_steps is None:
            raise InputError(f"{run.directory} has no comparison: neither comparison.csv nor summary.json")
        compared.append((run.comparison, run.reference_steps))
    names = _names(runs)
    title = f"{len(runs)} runs"
    lead = "Medians of Pearson r with the network, run by run; noises are the same where seed and image size are."
    drawn = figures.svg(figures.side_by_side, compared, names)
    chart = Chart(drawn, "Medians and bootstrap 95 % intervals.", "The numbers are in the table.")
    content = [
        Section("result", "Result", tables=[_results(runs, names)], charts=[chart]),
        Section("scale", "Scale of the patches", tables=[_scales(runs, names)]),
        Section("settings", "What differs", tables=[_settings(runs, names)]),
    ]
    written = [path, path.with_suffix(".md")]
    write_text(written[0], render(title, lead, content))
    write_text(written[1], document(title, lead, content))
    return written


def _names(runs: Sequence[Run]) -> list[str]:
    """The names of the runs' directories; with what lies above them where two are the same."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = ["/".join(run.directory.resolve().parts[-2:]) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{position + 1}: {name}" for position, name in enumerate(names)]
    return names


def _results(runs: Sequence[Run], names: Sequence[str]) -> Table:
    head = ["run", "machine", "network steps", "pairs", "median r", "95 % interval", "r²", "beats IS", "consistent"]
    table = Table("Median Pearson r with the network, with bootstrap 95 % intervals over pairs.", head, strong=4)
    for run, name in zip(runs, names, strict=True):
        for machine, by_steps in run.summary["machines"].items():
            for steps, entry in by_steps.items():
                table.rows.append(
                    [
                        name,
                        display_name(machine),
                        steps,
                        str(run.summary["pairs"]),
                        tables.number(entry["pearson_r"]["median"]),
                        tables.interval(entry["pearson_r"]),
                        tables.number(entry["pearson_r2"]["median"]),
                        tables.share(entry.get("beats_is")),
                        tables.share(entry.get("consistency"), 1),
                    ]
                )
    return tables.without_empty(table)


def _scales(runs: Sequence[Run], names: Sequence[str]) -> Table:
    table = Table("Patch sizes in pixels, from noise to image.", ["run", "machine", "patch size per step"], words=True)
    for run, name in zip(runs, names, strict=True):
        for machine, scales in run.scales.items():
            for parameter, column in scales.columns.items():
                title = display_name(machine) if parameter == PATCH_SIZE else f"{display_name(machine)}: {parameter}"
                table.rows.append([name, title, tables.sizes(column.flip(0).tolist())])
    return table


def _settings(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """Keys of the configuration in which the runs differ."""
    flat = [_flatten(run) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    table = Table("Settings that are not the same in all runs.", ["setting", *names], words=True)
    for key in keys:
        values = [settings.get(key, ABSENT) for settings in flat]
        if len(set(values)) > 1:
            table.rows.append([key, *values])
    return table


def _flatten(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}

    def collect(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                collect(part, f"{key}.{name}" if key else str(name))
        elif key.endswith("._target_"):
            found[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        elif not key.endswith("._partial_"):
            found[key] = str(value)

    # Unresolved: an interpolation says the same in every run, and what it refers to is listed itself.
    content = OmegaConf.to_container(run.config, resolve=False)
    assert isinstance(content, dict)
    collect({name: part for name, part in content.items() if name not in IGNORED}, "")
    return found
