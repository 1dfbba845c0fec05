"""The charts of a report: numbers in, SVG text out, in colours that follow the page."""

import hashlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import BASELINE, COLOURS, display_name
from elslightning.measurement.comparison import NETWORK
from elslightning.runs.run import Run

INK, FAINT = "#0a0b0c", "#0d0e0f"
"""Stand-ins, replaced by the page's own colours of text and of rules."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}
_MARKERS = "o^sDvP"
_NETWORK_COLOUR = INK


def draw(function: Any, *arguments: Any, **options: Any) -> str:
    """The SVG of the figure that `function` returns: text as text, no colours of its own but those of machines."""
    with matplotlib.rc_context(_STYLE):
        figure: Figure = function(*arguments, **options)
        buffer = io.StringIO()
        salt = hashlib.sha256(f"{function.__name__}{arguments}{options}".encode()).hexdigest()[:8]
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _tidy(buffer.getvalue(), salt)


def _tidy(text: str, salt: str) -> str:
    """A figure without its prologue and metadata, whose colours and names fit into a page with others."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{salt}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{salt}-", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt"', r'\1style="max-width: \2pt"', text, count=1)
    text = text.replace("'DejaVu Sans'", "inherit").replace("font: 10px inherit", "font-size: 10px")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, name in ((INK, "ink"), (FAINT, "rule"), *((shade, machine) for machine, shade in COLOURS.items())):
        text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
    return text


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def scatter(run: Run, machine: str) -> Figure:
    """Pearson r of one machine against that of the ideal score machine, a point per pair."""
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    for marker, steps in zip(itertools.cycle(_MARKERS), run.network_steps, strict=False):
        theory, ideal = run.values(machine, steps), run.values(BASELINE, steps)
        colour = COLOURS.get(machine, INK)
        filled = colour if marker == "o" else "none"
        label = f"network, {steps} steps: {np.mean(theory > ideal):.0%} above IS"
        axes.scatter(ideal, theory, s=22, marker=marker, edgecolor=colour, facecolor=filled, label=label)
    low = min(axes.get_xlim()[0], axes.get_ylim()[0], 0.9)
    axes.plot([low, 1], [low, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(low, 1.02)
    axes.set_ylim(low, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("r of IS with the network")
    axes.set_ylabel(f"r of {display_name(machine)} with the network")
    figure.legend(loc="outside upper center")
    return figure


def scales(run: Run, schedule: Schedule, formal: int | None) -> Figure:
    """Patch sizes against time, with the windows of the network's gradient and the formal receptive field."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    rows = sorted(run.receptive_field, key=lambda row: row["step"])
    if rows:
        t = _times(schedule, [row["alpha_bar"] for row in rows])
        low, middle, high = ([row[f"x0_size_{share}"] for row in rows] for share in (50, 90, 99))
        axes.fill_between(t, low, high, color=FAINT, alpha=0.55, linewidth=0, label="network: 50 … 99 % of gradient")
        axes.plot(t, middle, color=INK, linewidth=1, label="network: 90 % of gradient")
    for (name, table), style in zip(run.scales.items(), itertools.cycle(("-", "--", ":", "-.")), strict=False):
        colour = COLOURS.get(name, INK)
        t = _times(schedule, table.alpha_bar.tolist())
        axes.step(t, table.patch_size, where="mid", color=colour, linestyle=style, label=display_name(name))
    if formal is not None and rows and formal <= 2 * max(row["x0_size_99"] for row in rows):
        axes.axhline(formal, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), label=f"formal receptive field, {formal}")
    axes.set_xlabel("time t (0: image, 1: noise)")
    axes.set_ylabel("side of the window [pixels]")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper")
    return figure


def agreement_curves(run: Run, machine: str, schedule: Schedule) -> Figure:
    """The agreement of every patch size tried, against time; the calibrated ones are marked."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    calibration = run.calibrations[machine]
    levels = calibration.alpha_bar.tolist()
    found: dict[int, dict[float, list[float]]] = {
        size: dict(zip(levels, calibration.agreement[:, index].tolist(), strict=True))
        for index, size in enumerate(calibration.patch_sizes)
    }
    shades = matplotlib.colormaps["cividis"](np.linspace(0.3, 0.85, len(found)))
    dashes = itertools.cycle(("-", "--", "-.", ":"))
    for (size, by_level), shade, dash in zip(sorted(found.items()), shades, dashes, strict=False):
        t, medians = _times(schedule, list(by_level)), [float(np.median(values)) for values in by_level.values()]
        axes.plot(t, medians, color=shade, linestyle=dash, linewidth=1.2, label=f"P = {size}")
    table = run.scales.get(machine)
    if table is not None:
        for level, size in zip(table.alpha_bar.tolist(), table.patch_size.tolist(), strict=True):
            nearest = min(found.get(size, {}), key=lambda known: abs(known - level), default=None)
            if nearest is not None:
                value = float(np.median(found[size][nearest]))
                axes.plot(_times(schedule, [nearest]), [value], "o", ms=5, mfc="none", mec=INK)
    axes.set_xlabel("time t (0: image, 1: noise); circles: calibrated")
    axes.set_ylabel("median agreement")
    figure.legend(loc="outside right upper")
    return figure


def trajectory(alpha_bar: Tensor, curves: Mapping[str, Tensor], schedule: Schedule) -> Figure:
    """Agreement of posterior means per step: for each curve the median over pairs, and single pairs thinly."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    t = schedule.time(alpha_bar)
    looks = itertools.cycle([(COLOURS["bbels"], "-"), (COLOURS["is"], "--")])
    for (name, r), (colour, style) in zip(curves.items(), looks, strict=False):
        axes.plot(t, r, color=colour, linewidth=0.5, alpha=0.35)
        axes.plot(t, r.median(dim=1).values, color=colour, linestyle=style, linewidth=2, label=name)
    axes.set_xlabel("time t (1: noise, 0: image)")
    axes.set_ylabel("Pearson r of x0")
    axes.invert_xaxis()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def consistency(run: Run) -> Figure:
    """The share of consistent pixels of every sample, for machines and network."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in () if run.comparison is None else run.comparison.consistency:
        found.setdefault((row["machine"], row["source"], row["steps"]), []).append(row["consistency"])
    figure = _figure(6.4, 0.8 + 0.36 * len(found))
    axes = figure.subplots()
    titles = []
    for position, ((machine, source, steps), values) in enumerate(found.items()):
        jitter = np.linspace(-0.22, 0.22, len(values))[np.argsort(np.argsort(np.sin(np.arange(len(values)) * 12.9)))]
        colour, marker = (INK, "^") if source == NETWORK else (COLOURS.get(machine, INK), "o")
        axes.plot(values, position + jitter, marker, ms=3, mfc="none", mec=colour, mew=0.8, linestyle="none")
        axes.plot([np.median(values)] * 2, [position - 0.32, position + 0.32], color=INK, linewidth=2)
        of = f"network, {steps} steps" if source == NETWORK else "own samples"
        titles.append(f"{display_name(machine)}: {of}")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of consistent pixels; bars: medians")
    axes.grid(axis="y", visible=False)
    return figure


def training(losses: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Losses against optimizer steps, on logarithmic axes."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    looks = {"train/loss": (COLOURS["ls"], "-"), "val/loss": (COLOURS["bbels"], "--")}
    for name, points in losses.items():
        colour, style = looks.get(name, (INK, ":"))
        steps, values = zip(*points, strict=True)
        # Logarithms have no place for step 0.
        axes.plot([max(step, 1) for step in steps], values, color=colour, linestyle=style, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("mean squared error")
    for axis, subs in ((axes.xaxis, (1,)), (axes.yaxis, (1, 2, 3, 5))):
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend()
    return figure


def side_by_side(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """Medians with their intervals, a row per run and a mark per machine."""
    figure = _figure(7, 1.2 + 0.5 * len(runs))
    axes: Axes = figure.subplots()
    machines = list(dict.fromkeys(name for run in runs for name in run.machines))
    for marker, machine, shift in zip(
        itertools.cycle(_MARKERS), machines, np.linspace(-0.2, 0.2, len(machines)), strict=False
    ):
        places = [
            (position + shift, run.summary["machines"][machine][str(run.reference_steps)]["pearson_r"])
            for position, run in enumerate(runs)
            if machine in run.summary.get("machines", {})
        ]
        medians = np.array([entry["median"] for _, entry in places])
        spread = [[entry["median"] - entry["low"] for _, entry in places]]
        spread.append([entry["high"] - entry["median"] for _, entry in places])
        colour = COLOURS.get(machine, INK)
        heights = [height for height, _ in places]
        axes.errorbar(
            medians, heights, xerr=np.maximum(spread, 0), fmt=marker, color=colour, ms=6, label=display_name(machine)
        )
    axes.set_yticks(range(len(runs)), names)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel("median r with the network, 95 % interval")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside right upper")
    return figure


def _times(schedule: Schedule, levels: Sequence[float]) -> list[float]:
    return schedule.time(torch.tensor(list(levels), dtype=torch.float64)).tolist()
