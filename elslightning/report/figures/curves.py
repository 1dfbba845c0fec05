"""What changes on the way: losses while training, agreement while sampling, and what a later start gains."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import display_name
from elslightning.measurement.agreement import median_interval
from elslightning.measurement.comparison import Comparison
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


@styled
def handover(comparison: Comparison, *, style: Style = SCREEN) -> Figure:
    """Where agreement is lost: Pearson r of the network's samples with those of a theory that went on after so many
    steps of the network; the median with its 95 % bootstrap interval, and single pairs thinly.

    Args:
        comparison: which has a hand-over.
        style: how it looks.
    """
    figure = new_figure(style, style.column, 0.58 * style.column)
    axes = figure.subplots()
    for name in dict.fromkeys(row["machine"] for row in comparison.handover):
        found, colour = comparison.handed_over(name), style.colour(name)
        axes.plot(list(found), torch.stack(list(found.values())), color=colour, linewidth=0.3 * style.line, alpha=0.25)
        medians, low, high = np.array([median_interval(r) for r in found.values()]).T
        spread = np.maximum([medians - low, high - medians], 0)
        look: dict[str, Any] = {"marker": "o", "ms": 0.4 * style.type, "capsize": 2, "linewidth": 1.3 * style.line}
        axes.errorbar(list(found), medians, yerr=spread, color=colour, label=display_name(name), **look)
        axes.set_xticks(list(found))
    axes.set_xlabel("steps of the network before the theory takes over")
    axes.set_ylabel("Pearson r of the samples")
    axes.legend(loc="lower right")
    return figure
