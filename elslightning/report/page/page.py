"""The report of one run: its sections, and the files they are written to."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import elslightning
from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.registry import ENTRIES
from elslightning.report.page.creativity import Standing, section, standing
from elslightning.report.page.explorer import Explorer, explore
from elslightning.report.page.markdown import document
from elslightning.report.page.mosaics import mosaics
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.sections import lead, sections
from elslightning.report.page.tables import Table
from elslightning.runs.experiment import open_run, rebuild
from elslightning.runs.layout import CREATIVITY, REPORT, REPORT_TEXT
from elslightning.runs.run import Run
from elslightning.system.errors import InputError
from elslightning.system.files import write_csv, write_text


def write_report(
    run_dir: str | Path, *, pairs: int = 9, work: float = 8e10, progress: Progress = no_progress
) -> list[Path]:
    """Writes report.html and report.md of a finished run of `train`, `calibrate` or `compare` into its directory.

    report.html is one file that needs nothing else, neither a server nor a network. What the run does not have is left
    out, and a sentence says why.

    Args:
        run_dir: the directory of the run.
        pairs: number of pairs that the mosaic explorer shows, at most; fewer where the file would grow too large.
        work: candidates that may be weighed in all, over channels, pixels, pairs and steps; on one core of a CPU about
            2e9 a second. It bounds the time, but for the one pair that is explored however large the data.
        progress: told of every step.

    Raises:
        InputError: for a directory that is no such run, a file in it that is damaged, and pairs < 1.

    Returns:
        The two paths.
    """
    if pairs < 1:
        raise InputError(f"the explorer needs at least 1 pair, not {pairs}")
    run = open_run(run_dir)
    explorer, statistics, found, complaint = _again(run, pairs, work, progress)
    content = sections(run, explorer, complaint, statistics, section(found, complaint) if run.summary else None)
    written = [run.directory / REPORT, run.directory / REPORT_TEXT]
    if found is not None:
        write_csv(run.directory / CREATIVITY, found.rows())
    write_text(written[0], render(run.name, lead(run), content, explorer))
    write_text(written[1], document(run.name, lead(run), content))
    return written


def render(title: str, summary: str, content: Sequence[Section], explorer: Explorer | None = None) -> str:
    """The page with these sections; whatever comes from a run is escaped.

    Args:
        title: of the page.
        summary: the result in a sentence.
        content: the sections.
        explorer: what the section with the explorer needs.
    """
    environment = _templates()

    def own(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    shown = [vars(section) | {"charts": [_trusted(c) for c in section.charts]} for section in content]
    return environment.get_template("report.html").render(
        title=title,
        lead=summary,
        sections=shown,
        # The data is made safe where it is made, see `Explorer.json`; base64 is harmless.
        explorer=None if explorer is None else {"meta": Markup(explorer.json), "blob": explorer.blob},
        machines=ENTRIES,
        css=own("report.css"),
        javascript=own("explorer.js"),
        version=elslightning.__version__,
    )


@cache
def _templates() -> jinja2.Environment:
    """Those of pages, which are compiled once."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("elslightning.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _trusted(chart: Chart) -> dict[str, Any]:
    """A chart whose SVG is taken as it is: matplotlib has escaped the text in it."""
    return vars(chart) | {"svg": Markup(chart.svg)}


def _again(
    run: Run, pairs: int, work: float, progress: Progress
) -> tuple[Explorer | None, Table | None, Standing | None, str]:
    """What needs the experiment itself: the explorer, the statistics of mosaics and where the network stands, or else
    why there is none."""
    if not run.summary:
        return None, None, None, "There is no explorer, for the run compared nothing."
    try:
        experiment = rebuild(run)
        explorer = explore(run, experiment, pairs=pairs, work=0.75 * work, progress=progress)
        statistics = mosaics(run, experiment, work=0.2 * work, progress=progress)
        return explorer, statistics, standing(run, experiment, work=0.03 * work, progress=progress), ""
    except InputError as error:
        return None, None, None, f"There is no explorer: {error}."
