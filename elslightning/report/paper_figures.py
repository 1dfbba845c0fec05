"""The paper's figures for a run of one's own: arrays and tables in, matplotlib figures out (Kamb & Ganguli 2025)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import BASELINE, COLOURS, display_name
from elslightning.measurement.comparison import median_interval
from elslightning.measurement.gradients import GradientField, effective_size
from elslightning.report.paper_style import COLUMN, FAINT, INK, LINES, MARKERS, PAGE, Sheet, letter, new_figure, styled

TIME = "time t (0: image, 1: noise)"
FLOOR = 1e-3
"""A factor of 1000 below its peak a gradient is of no account, and logarithms need an end."""


@styled
def black_white(samples: np.ndarray, consistent: float | None = None) -> Figure:
    """Fig. 3: the two training images, all black and all white, and samples of ELS, no two alike.

    Args:
        samples: (samples, channel, height, width) in [-1, 1]; the first 32 are shown.
        consistent: the median share of pixels that have the majority colour of their patch, if it is known.
    """
    shown, columns, gap, left, top = samples[:32], 8, 0.04, 0.72, 0.22
    side = (COLUMN - left) / columns - gap
    lines = -(-len(shown) // columns)
    sheet = Sheet(left + columns * (side + gap), top + max(lines, 2) * (side + gap) + 0.02)
    sheet.text("a", 0.02, 0.08, ha="left", fontweight="bold", fontsize=8)
    sheet.text("training set", 0.12, 0.08, ha="left", fontsize=7)
    sheet.text("b", left, 0.08, ha="left", fontweight="bold", fontsize=8)
    share = "" if consistent is None else f"; {consistent:.0%} of pixels are consistent (median)"
    sheet.text(f"ELS samples{share}", left + 0.1, 0.08, ha="left", fontsize=7)
    for line, value in enumerate((-1.0, 1.0)):
        sheet.image(np.full(samples.shape[1:], value), 0.12, top + line * (side + gap), side)
    for place, sample in enumerate(shown):
        sheet.image(sample, left + place % columns * (side + gap), top + place // columns * (side + gap), side)
    return sheet.figure


@styled
def receptive_field(
    field: GradientField, schedule: Schedule, table: ParameterTable | None = None, count: int = 5
) -> Figure:
    """Fig. 4a: the network's gradients around the centre pixel, from low noise to high, for eps and for x0.

    A solid frame holds 90 % of the gradient; a dotted one is the patch that the theory was calibrated to.

    Args:
        field: the gradients.
        schedule: gives the times.
        table: the theory's patch sizes, if they are known.
        count: number of noise levels shown, evenly spread; fewer if there are fewer steps.
    """
    steps = np.unique(np.linspace(0, len(field.alpha_bar) - 1, count).round().astype(int)).tolist()[::-1]
    t = schedule.time(field.alpha_bar)
    figure = new_figure(COLUMN, 1.5)
    grid = figure.subplots(2, len(steps), squeeze=False)
    for line, name, gradients in zip(grid, ("eps", "x0"), (field.gradient, field.x0_gradient), strict=True):
        framed = effective_size(gradients, 0.9).tolist()
        for axes, step in zip(line, steps, strict=True):
            gradient = gradients[step].double().numpy()
            picture = axes.imshow(np.maximum(gradient / (gradient.max() or 1), FLOOR), norm=LogNorm(FLOOR, 1))
            _frame(axes, gradient.shape, framed[step], linestyle="-")
            if table is not None:
                _frame(axes, gradient.shape, int(table.at(field.alpha_bar[step : step + 1])[0]), linestyle=(0, (1, 1)))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel({"eps": "|∂ε / ∂xₜ|", "x0": "|∂x₀ / ∂xₜ|"}[name])
    for axes, step in zip(grid[0], steps, strict=True):
        axes.set_title(f"t = {float(t[step]):.2f}")
    bar = figure.colorbar(picture, ax=list(grid.flat), aspect=18, pad=0.02)
    bar.set_label("relative to the peak")
    _plain_logarithm(bar.ax)
    frames = "solid: 90 % of the gradient" + ("" if table is None else "; dotted: calibrated patch")
    figure.supxlabel(frames, fontsize=6)
    return figure


def _frame(axes: Axes, shape: tuple[int, ...], size: int, **look: Any) -> None:
    """The window of a size around the centre pixel, cut at the border of the image."""
    top, left = (max(side // 2 - size / 2, -0.5) for side in shape)
    bottom, right = (min(side // 2 + size / 2, side - 0.5) for side in shape)
    # Black beneath white is seen on every colour.
    for colour, width in (("black", 1.6), ("white", 0.8)):
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, **look)
        )


@styled
def patch_size(
    tables: Mapping[str, ParameterTable],
    schedule: Schedule,
    *,
    evidence: Sequence[Mapping[str, Any]] = (),
    field: GradientField | None = None,
    objective: str = "cosine",
) -> Figure:
    """Fig. 4b: the calibrated patch size against time beside the network's own receptive field, and the disagreement
    with the network that is left.

    Args:
        tables: patch sizes by machine.
        schedule: gives the times.
        evidence: rows of calibration.csv; without any, the disagreement is left out.
        field: the network's gradients, if they are known.
        objective: what agreement is, `calibration.objective`.
    """
    figure = new_figure(COLUMN, 3.2 if evidence else 2.0)
    top, *others = figure.subplots(2 if evidence else 1, 1, sharex=True, squeeze=False)[:, 0]
    if field is not None:
        t = schedule.time(field.alpha_bar)
        top.plot(t, field.size(0.9), color="0.4", linewidth=0.8, label="90 % of gradient")
        top.fill_between(t, field.size(0.5), field.size(0.99), color="0.88", linewidth=0, zorder=0, label="50–99 %")
    looks = {
        name: {"color": COLOURS.get(name, INK), "linestyle": LINES[i % len(LINES)]} for i, name in enumerate(tables)
    }
    for name, table in tables.items():
        t = schedule.time(table.alpha_bar)
        top.step(t, table.patch_size, where="mid", label=display_name(name), **looks[name])
    top.set_ylabel("patch size P [pixels]")
    top.set_ylim(bottom=0)
    top.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.legend(loc="outside upper center", ncols=4, columnspacing=1, handletextpad=0.4)
    for axes in others:
        letter(top, "a")
        letter(axes, "b")
        label, sign, offset = _DISAGREEMENT.get(objective, (f"median disagreement ({objective})", -1.0, 0.0))
        positive = True
        for name, table in tables.items():
            times, low, middle, high = _at_calibrated(evidence, name, table, schedule)
            bounds = [sign * curve + offset for curve in (high, middle, low)]
            positive &= all(bool((curve > 0).all()) for curve in bounds)
            axes.fill_between(times, bounds[0], bounds[2], color=looks[name]["color"], alpha=0.18, linewidth=0)
            axes.plot(times, bounds[1], label=display_name(name), **looks[name])
        axes.set_ylabel(label)
        if positive:
            axes.set_yscale("log")
            _plain_logarithm(axes)
    (others or [top])[-1].set_xlabel(TIME)
    top.set_xlim(0, 1)
    return figure


_DISAGREEMENT = {
    "cosine": ("1 − cosine of the two ε", -1.0, 1.0),
    "mse": ("mean squared error of the two ε", -1.0, 0.0),
    "heldout": ("mean squared error on held-out images", -1.0, 0.0),
}
"""By calibration objective: what is left between theory and network, and the sign and the offset that make it of
agreement."""


def _at_calibrated(
    evidence: Sequence[Mapping[str, Any]], machine: str, table: ParameterTable, schedule: Schedule
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times, and quartiles over samples of the agreement at the calibrated patch sizes."""
    found: dict[float, list[float]] = {}
    sizes: dict[float, int] = {}
    for row in evidence:
        level = row["alpha_bar"]
        if row["machine"] == machine:
            if level not in sizes:
                sizes[level] = int(table.at(torch.tensor([level], dtype=torch.float64))[0])
            if row["patch_size"] == sizes[level]:
                found.setdefault(level, []).append(row["agreement"])
    levels = sorted(found, reverse=True)
    quartiles = np.array([np.quantile(found[level], (0.25, 0.5, 0.75)) for level in levels]).reshape(-1, 3)
    return (schedule.time(torch.tensor(levels, dtype=torch.float64)).numpy(), *quartiles.T)


def _plain_logarithm(axes: Axes) -> None:
    """Numbers as people write them beside a logarithmic axis, and not more than fit."""
    low, high = sorted(axes.get_ylim())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


@styled
def scatter(values: Mapping[int, Mapping[str, np.ndarray]]) -> Figure:
    """Pearson r of every machine with the network against that of IS, a point per pair, a panel per number of network
    steps (beside Fig. 5); black marks are medians with 95 % bootstrap intervals.

    Args:
        values: by number of network steps and machine, (pairs,) each; "is" among the machines.
    """
    columns = min(3, len(values))
    lines, side = -(-len(values) // columns), COLUMN if columns == 1 else PAGE / columns
    figure = new_figure(side * columns, side * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    # Both axes alike, from a round number below all points.
    low = float(np.floor(10 * min(r.min() for by_machine in values.values() for r in by_machine.values()))) / 10
    for position, (axes, (steps, by_machine)) in enumerate(zip(grid.flat, values.items(), strict=False)):
        ideal = by_machine[BASELINE]
        axes.plot([low, 1], [low, 1], color=FAINT, linewidth=0.8, zorder=0)
        others = [name for name in by_machine if name != BASELINE]
        for marker, name in zip(itertools.cycle(MARKERS), others, strict=False):
            colour, r = COLOURS.get(name, INK), by_machine[name]
            label = f"{display_name(name)}: {np.mean(r > ideal):.0%} above IS"
            face = colour if marker == "o" else "none"
            axes.plot(ideal, r, marker, ms=3, mew=0.6, mfc=face, mec=colour, alpha=0.6, linestyle="none", label=label)
            (x, *ends), (y, *sides) = (median_interval(torch.from_numpy(of)) for of in (ideal, r))
            errors = [[[abs(middle - end)] for end in both] for middle, both in ((x, ends), (y, sides))]
            axes.errorbar(
                x, y, xerr=errors[0], yerr=errors[1], color=INK, elinewidth=1, marker=marker, ms=4, mfc=colour
            )
        axes.set_xlim(low - 0.02, 1.02)
        axes.set_ylim(low - 0.02, 1.02)
        axes.set_aspect("equal")
        axes.set_xlabel("Pearson r of IS with the network")
        axes.set_title(f"network, {steps} steps")
        axes.legend(loc="lower right", handletextpad=0.2)
        if len(values) > 1:
            letter(axes, "abcdefgh"[position % 8])
        if position % columns == 0:
            axes.set_ylabel("Pearson r of theory with the network")
    for axes in grid.flat[len(values) :]:
        axes.set_axis_off()
    return figure
