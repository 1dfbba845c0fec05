"""What changes on the way: losses while training, agreement while sampling."""

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.report.figures.style import LINES, SCREEN, Style, new_figure, plain_logarithm, styled, time_axis

TWO = (("bbels", LINES[0]), ("is", LINES[1]))
"""Whose colour, and which style of line, two curves have that belong to no machine."""


@styled
def losses(history: Mapping[str, Sequence[tuple[int, float]]], *, style: Style = SCREEN) -> Figure:
    """Losses against optimizer steps, on logarithmic axes: a curve per name, as (step, value) pairs."""
    figure = new_figure(style, style.column, 0.58 * style.column)
    axes = figure.subplots()
    for (name, points), (machine, line) in zip(history.items(), itertools.cycle(TWO), strict=False):
        # Logarithms have no place for step 0.
        steps, values = [max(step, 1) for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, marker=".", ms=3, color=style.colour(machine), linestyle=line, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("mean squared error")
    for axis in (axes.xaxis, axes.yaxis):
        plain_logarithm(axis)
    if history:
        axes.legend()
    return figure


@styled
def trajectory(alpha_bar: Tensor, curves: Mapping[str, Tensor], schedule: Schedule, *, style: Style = SCREEN) -> Figure:
    """Agreement of posterior means per step: for each curve the median over pairs, and single pairs thinly.

    Args:
        alpha_bar: (steps,) noise levels.
        curves: Pearson r of x0 by name, (steps, pairs) each.
        schedule: gives the times.
        style: how it looks.
    """
    figure = new_figure(style, style.column, 0.58 * style.column)
    axes = figure.subplots()
    t = schedule.time(alpha_bar)
    for (name, r), (machine, line) in zip(curves.items(), itertools.cycle(TWO), strict=False):
        colour = style.colour(machine)
        axes.plot(t, r, color=colour, linewidth=0.3 * style.line, alpha=0.35)
        axes.plot(t, r.quantile(0.5, dim=1), color=colour, linestyle=line, linewidth=1.3 * style.line, label=name)
    axes.set_ylabel("Pearson r of x0")
    time_axis(axes)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
