"""The sections that tell theories apart: ranking, hand-over, the network's own states, consistency."""

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import display_name
from elslightning.report import figures
from elslightning.report.page import tables
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.tables import Table
from elslightning.runs.run import Run


def handover(run: Run) -> list[Section]:
    """Only of a run that asked for it."""
    if run.comparison is None or not run.comparison.handover:
        return []
    text = (
        "The theory takes over from the network after some of its steps, at the network's own state, and its sample is "
        "held against the network's. What r gains over the start at the noise was lost in the steps before."
    )
    table = Table("Median r of the samples.", ["machine", "network steps before", "median r", "95 % interval"])
    for name, by_steps in run.summary.get("handover", {}).items():
        for after, entry in by_steps.items():
            cells = [after, tables.number(entry["median"]), tables.interval(entry)]
            table.rows.append([display_name(name), *cells])
    svg = figures.svg(figures.handover, run.comparison)
    chart = Chart(svg, "Thick: medians with 95 % intervals; thin: single pairs.", "The medians are in the table.")
    return [Section("handover", "Hand-over", texts=[text], charts=[chart], tables=[table])]


def ranking(run: Run) -> list[Section]:
    """Only of a run that compared several."""
    if run.comparison is None or run.reference_steps is None or len(run.comparison.names) < 2:
        return []
    comparison, steps = run.comparison, run.reference_steps
    name = display_name(comparison.reference)
    text = (
        f"By how much each exceeds {name} on the same noise, against {steps} network steps: medians over pairs with "
        f"95 % intervals. Where an interval holds 0, the pairs do not tell the two apart."
    )
    chart = Chart(
        figures.svg(figures.ranking, comparison, steps),
        "The best by median r first; stars: second networks.",
        "The differences of r are in the table of results.",
    )
    return [Section("ranking", "Ranking", texts=[text], charts=[chart])]


def stepwise(run: Run, schedule: Schedule | str) -> list[Section]:
    """Only of a run that asked for it."""
    comparison, title = run.comparison, "At the network's states"
    if comparison is None or not comparison.stepwise:
        return []
    text = (
        "At every state of the network's own path, the posterior mean of each machine is held against the network's. "
        "An x0 whose squared error is above the Wiener filter's is farther from the network than the best linear "
        "denoiser is."
    )
    if isinstance(schedule, str):
        return [Section("states", title, schedule)]
    names = [name for name in comparison.names if len(comparison.along(name, "eps_cosine")[0])]
    table = Table("Median 1 - cos of eps.", ["t", *map(display_name, names)])
    columns = [(1 - comparison.along(name, "eps_cosine")[1]).quantile(0.5, dim=1).tolist() for name in names]
    times = schedule.time(comparison.along(names[0], "eps_cosine")[0]).tolist()
    table.rows.extend([f"{t:.2f}", *(f"{one:.1e}" for one in row)] for t, *row in zip(times, *columns, strict=True))
    svg = figures.svg(figures.stepwise, comparison, schedule)
    chart = Chart(svg, "Medians over pairs; lower is nearer.", "Distances against time; see the table.")
    return [Section("states", title, texts=[text], charts=[chart], details=[table])]


def consistency(run: Run) -> Section:
    title = "Local consistency"
    if run.comparison is None or not run.comparison.consistency:
        return Section("consistency", title, "The run has no consistency.csv: consistency was not measured.")
    text = (
        "Theorem 4.1: as steps get finer, every pixel of a machine's sample becomes the centre of the training patch "
        "nearest to its own. With few steps it holds for some pixels only."
    )
    chart = Chart(
        figures.svg(figures.consistency, run.comparison), "A mark per sample.", "The medians are in the table."
    )
    return Section("consistency", title, texts=[text], tables=[tables.consistency_table(run)], charts=[chart])
