"""The report of a multirun: a row per run, and a figure with the answer to the question of its sweep."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.machines.registry import MACHINES
from elslightning.machines.scales import load_scales
from elslightning.measurement.names import NETWORK
from elslightning.measurement.result import summary_scalars
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map, image_points, machine_point
from elslightning.report.figures.sweeps import sweep
from elslightning.runs.belonging import check_files
from elslightning.runs.experiment import formal_receptive_field
from elslightning.runs.jobs import FINISHED, Job, find_jobs, lost, unfinished, varied
from elslightning.runs.layout import (
    CONFIG,
    CREATIVITY,
    FIGURES,
    METRICS,
    RECEPTIVE_FIELD,
    SCALES,
    SUMMARY,
    SWEEP,
    read_creativity,
    read_table,
)
from elslightning.runs.metrics import STEP, read_metrics
from elslightning.runs.run import read_run_config
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, write_csv

UNREADABLE = "unreadable"
FIELD = "receptive_field"
"""The column with the formal receptive field of the network, which no key of the configuration states."""


@dataclass(frozen=True)
class Question:
    """What a sweep asks, and how its figure answers; the section `sweep` of a configuration.

    Attributes:
        question: the title.
        x: the horizontal axis: a key of the configuration, `receptive_field`, or for a history the optimizer's `step`.
        columns: a column of panels for each value of this key; None for one column.
        lines: a style of line for each value of this key; None for one style.
        history: show what was logged while training, and not the end only.
        map: show the creativity map: every network where its samples stand, beside the images and the theory.
    """

    question: str = ""
    x: str = "job"
    columns: str | None = None
    lines: str | None = None
    history: bool = False
    map: bool = False


@dataclass(frozen=True)
class Report:
    """What was reported.

    Attributes:
        jobs: all runs, those without results among them.
        written: the files.
        complaint: why there is no figure, if drawing failed.
    """

    jobs: list[Job]
    written: list[Path]
    complaint: str | None = None

    def text(self) -> str:
        """What to print."""
        lines = [f"report: {path}" for path in self.written]
        if self.complaint is not None:
            lines.append(f"there is no figure: {self.complaint}")
        return "\n".join(lines)

    def skipped(self) -> str | None:
        """Which runs are not in the figure, and why, in one line; None if all are."""
        return lost(self.jobs) if unfinished(self.jobs) else None


def report(directory: str | Path) -> Report:
    """Writes sweep.csv and figures/sweep.png of the runs below a directory, finished or not.

    Raises:
        InputError: if there are none.
    """
    directory = Path(directory)
    jobs = find_jobs(directory)
    configs = {job.directory: _config(job) for job in jobs}
    question = _question(jobs, next((config for config in configs.values() if "sweep" in config), OmegaConf.create()))
    asked = [key for key in (question.x, question.columns, question.lines) if key is not None]
    rows, points = [], []
    for index, job in enumerate(jobs):
        config = configs[job.directory]
        settings = {"job": job.directory.name, FIELD: formal_receptive_field(config)}
        settings |= {key: _setting(key, config, job) for key in asked if key not in (*settings, STEP)}
        found: dict[str, Any] = {}
        if job.status == FINISHED:
            try:
                found = _found(job.directory)
                points += [settings | part for part in (_history(job.directory) if question.history else [found])]
            except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
                jobs[index] = job = replace(job, status=UNREADABLE, error=f"{UNREADABLE}: {error}")
        head = {"job": job.directory.name, "status": job.status, "error": job.error, "seconds": job.seconds}
        rows.append(head | job.values() | settings | found)
    names = list(dict.fromkeys(name for row in rows for name in row))
    written = [directory / SWEEP]
    write_csv(written[0], ({name: row.get(name) for name in names} for row in rows))
    try:
        if question.map:
            figure = _map(points, question, [job for job in jobs if job.status == FINISHED])
        else:
            figure = sweep(points, question.x, columns=question.columns, lines=question.lines, title=question.question)
        if figure is not None:
            figures.save(figure, directory / FIGURES / "sweep.png")
            written.append(directory / FIGURES / "sweep.png")
    except Exception as error:  # the numbers are there, whatever befalls their picture
        return Report(jobs, written, f"{type(error).__name__}: {error}")
    return Report(jobs, written)


def _config(job: Job) -> DictConfig:
    try:
        check_files(job.directory, CONFIG)
        return read_run_config(job.directory / CONFIG)
    except InputError:
        return OmegaConf.create()


def _question(jobs: list[Job], config: DictConfig) -> Question:
    """What the configuration asks; without a sweep in it, how results depend on what varies, seeds aside."""
    if "sweep" in config:
        section = OmegaConf.to_container(config, resolve=False)["sweep"]  # type: ignore[index, call-overload]
        known = Question.__dataclass_fields__
        asked = {key: value for key, value in section.items() if key in known} if isinstance(section, dict) else {}
        kinds = {key: bool if key in ("history", "map") else str | None for key in asked}
        if not asked or not all(isinstance(value, kinds[key]) for key, value in asked.items()):
            raise InputError(f"the section sweep of the configuration asks nothing that could be shown: {section}")
        return Question(**asked)
    keys = [key for key in varied(jobs) if key != "seed"]
    numeric = [key for key in keys if all(_is_number(job.values().get(key)) for job in jobs)]
    x, *others = [*numeric, *(key for key in keys if key not in numeric)] or ["job"]
    columns, lines = [*others, None, None][:2]
    return Question(f"How do scale and agreement depend on {x}?", x, columns, lines)


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _setting(key: str, config: DictConfig, job: Job) -> Any:
    """What a run has for a key of the configuration, or for a group as in `experiment=digits`."""
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # it refers to what is not there
        value = None
    if isinstance(value, ListConfig):
        return str(OmegaConf.to_container(value)).replace(" ", "")
    return job.values().get(key) if value is None or isinstance(value, DictConfig) else value


def _found(directory: Path) -> dict[str, Any]:
    """The results of a finished run, by the names under which they are logged."""
    found: dict[str, Any] = {}
    check_files(directory)
    known = {NETWORK}
    if (directory / SUMMARY).is_file():
        summary = read_json(directory / SUMMARY)
        known |= summary.get("machines", {}).keys()
        found |= summary_scalars(summary) if "machines" in summary else {}
    if (directory / SCALES).is_file():
        for name, table in load_scales(directory / SCALES).items():
            for parameter, column in table.columns.items():
                if bool(column.isfinite().all()):
                    found[f"val/{name}/{parameter}_mean"] = float(column.double().mean())
                found[f"val/{name}/{parameter}s"] = " ".join(map(str, column.tolist()))
    for name, summary in read_creativity(directory / CREATIVITY).items():
        if name in known:
            found = {f"val/{name}/{measure}": entry["mean"] for measure, entry in summary.items()} | found
    if sizes := [row["x0_size_90"] for row in read_table(directory / RECEPTIVE_FIELD)]:
        found["val/network/patch_size_mean"] = sum(sizes) / len(sizes)
    return found


def _history(directory: Path) -> Iterator[dict[str, Any]]:
    """What was logged of the comparisons while training, a dictionary for each."""
    for row in read_metrics(directory / METRICS):
        found = {name: float(value) for name, value in row.items() if name.startswith("val/")}
        if any(name.endswith("/pearson_r_median") for name in found):
            yield {STEP: int(row[STEP])} | found


def _map(points: list[dict[str, Any]], question: Question, jobs: list[Job]) -> Figure | None:
    """The creativity map of the runs that measured their samples, those that differ in the horizontal key alone joined;
    None if none has."""
    shown: list[dict[str, Any]] = []
    aside = (question.x, question.columns, "seed", "experiment")
    keys = varied(jobs)
    # Where the horizontal key is not one that was set, another stands for it.
    others = [key for key in keys if key not in aside] if question.x in keys else []
    for point, job in zip(points, jobs, strict=True):
        found = read_creativity(job.directory / CREATIVITY)
        if NETWORK not in found:
            continue
        if not shown:
            machines = [name for name in found if name in MACHINES]
            shown += [machine_point(name, "", found[name]) for name in machines]
            shown += [image_points(name, found[name]) for name in found if name not in (*machines, NETWORK)]
        apart = {} if question.columns is None else {question.columns: point.get(question.columns)}
        apart |= {key: job.values().get(key) for key in others}
        # Of one key its whole name, of several what fits into a legend.
        short = {key if len(apart) == 1 else key.rpartition(".")[2]: value for key, value in apart.items()}
        group = ", ".join(f"{key} = {value}" for key, value in short.items()) or "networks"
        shown.append(machine_point(NETWORK, str(point.get(question.x)), found[NETWORK], group))
    return creativity_map(shown, title=question.question) if shown else None
