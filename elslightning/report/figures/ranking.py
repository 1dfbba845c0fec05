"""Which theory explains a network better: paired differences, and agreement at the network's own states."""

import itertools
from typing import Any

from matplotlib.figure import Figure

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import display_name
from elslightning.measurement.agreement import median_interval
from elslightning.measurement.comparison import Comparison
from elslightning.report.figures.style import (
    LINES,
    MARKERS,
    SCREEN,
    Style,
    legend,
    new_figure,
    plain_logarithm,
    styled,
    time_axis,
)

MEASURED = {"pearson_r": "Pearson r", "r2_score": "R²", "beyond_trivial": "beyond the trivial"}
LEAST = 1e-7
"""Distances below it are drawn at it: a logarithm has no place for 0."""


@styled
def ranking(comparison: Comparison, steps: int, *, style: Style = SCREEN) -> Figure:
    """Theories and second networks, the best first: the median over pairs by which each exceeds the first theory, with
    its 95 % bootstrap interval; a panel per measure.

    All start from the same noises, so that an interval that does not hold 0 tells a machine from the first theory even
    where the intervals of their medians overlap.

    Args:
        comparison: what was compared.
        steps: those of the network.
        style: how it looks.
    """
    reference = comparison.reference
    measures = [one for one in MEASURED if len(comparison.values(reference, steps, one))]
    order = sorted(comparison.names, key=lambda name: -float(comparison.values(name, steps).quantile(0.5)))
    height = 0.42 + 0.2 * len(order) * style.type / 9
    figure = new_figure(style, style.page, height + 0.4)
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        own = float(comparison.values(reference, steps, measure).quantile(0.5))
        axes.axvline(0, color=style.ink, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
        for position, name in enumerate(order):
            apart = comparison.difference(name, steps, measure)
            middle, low, high = (0.0, 0.0, 0.0) if apart is None else median_interval(apart)
            look: dict[str, Any] = {"color": style.colour(name), "ms": 0.6 * style.type, "capsize": 2}
            marker = "*" if name in comparison.peers else "o"
            axes.errorbar(middle, position, xerr=[[max(middle - low, 0)], [max(high - middle, 0)]], fmt=marker, **look)
        axes.set_xlabel(f"{MEASURED[measure]}\nminus {display_name(reference)} ({own:.3f})")
        # Most theories lie close to each other, and trivial ones far away.
        axes.set_xscale("symlog", linthresh=0.01, linscale=0.7)
        axes.set_xticks([-1, -0.1, -0.01, 0, 0.01, 0.1], ["-1", "-.1", "-.01", "0", ".01", ".1"])
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(order)), [display_name(name) for name in order])
    panels[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


@styled
def stepwise(comparison: Comparison, schedule: Schedule, *, style: Style = SCREEN) -> Figure:
    """How far theories are from the network at its own states, per noise level: medians over pairs of 1 - cos of eps,
    and of the mean squared error of x0 relative to that of the Wiener filter, where that was compared.

    Args:
        comparison: which was measured step by step.
        schedule: gives the times.
        style: how it looks.
    """
    names = [name for name in comparison.names if len(comparison.along(name, "eps_cosine")[0])]
    beside = len(comparison.along("wiener", "x0_mse")[0]) > 0
    figure = new_figure(style, style.page if beside else style.column, 0.5 * style.column)
    panels = figure.subplots(1, 2 if beside else 1, squeeze=False)[0]
    drawn: dict[str, Any] = {}
    for name, line, marker in zip(names, itertools.cycle(LINES), itertools.cycle(MARKERS), strict=False):
        levels, cosine = comparison.along(name, "eps_cosine")
        t = schedule.time(levels)
        look: dict[str, Any] = {
            "color": style.colour(name),
            "linestyle": line,
            "marker": marker,
            "ms": 0.3 * style.type,
        }
        (drawn[display_name(name)],) = panels[0].plot(t, (1 - cosine).quantile(0.5, dim=1).clamp(min=LEAST), **look)
        if beside:
            error, linear = (comparison.along(one, "x0_mse")[1].quantile(0.5, dim=1) for one in (name, "wiener"))
            panels[1].plot(t, (error / linear.clamp(min=LEAST)).clamp(min=LEAST), **look)
    panels[0].set_ylabel("1 - cos of eps")
    if beside:
        panels[1].set_ylabel("squared error of x0 / Wiener's")
        panels[1].axhline(1, color=style.ink, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    for axes in panels:
        axes.set_yscale("log")
        plain_logarithm(axes.yaxis)
        time_axis(axes)
    legend(figure, drawn, style, "outside upper center")
    return figure
