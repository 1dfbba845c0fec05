"""What was found of every pair, and of every run: marks on axes."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from elslightning.machines.registry import BASELINE, display_name
from elslightning.measurement.agreement import median_interval
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.names import NETWORK
from elslightning.report.figures.style import MARKERS, SCREEN, Style, new_figure, percent, plain, styled

COLUMNS = 3
"""Panels beside each other, at most."""


@styled
def scatter(comparison: Comparison, machines: Sequence[str] | None = None, *, style: Style = SCREEN) -> Figure:
    """Pearson r of every machine with the network against that of IS, a point per pair, a panel per number of network
    steps (beside Fig. 5); marks with crosses are medians with their 95 % bootstrap intervals.

    Args:
        comparison: whose machines have "is" among them.
        machines: which of them; None for all, and other networks.
        style: how it looks.
    """
    shown = [name for name in (comparison.names if machines is None else machines) if name != BASELINE]
    network_steps = comparison.network_steps
    r = {(name, steps): comparison.values(name, steps) for name in [*shown, BASELINE] for steps in network_steps}
    columns = min(COLUMNS, len(network_steps))
    lines, side = -(-len(network_steps) // columns), min(style.column, style.page / columns)
    figure = new_figure(style, side * columns, side * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    # Both axes alike, from a round number below all points.
    low = float(torch.cat(list(r.values())).nan_to_num(0.0).min().mul(10).floor()) / 10
    for axes, letter, steps in zip(grid.flat, itertools.count(ord("a")), network_steps, strict=False):
        ideal = r[BASELINE, steps]
        axes.plot([low, 1], [low, 1], color=style.ink, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
        for marker, name in zip(itertools.cycle(MARKERS), shown, strict=False):
            colour, theory = style.colour(name), r[name, steps]
            above = percent(float((theory > ideal).double().mean()))
            look = {"ms": style.type / 2, "mfc": colour if marker == "o" else "none", "mec": colour, "mew": 0.7}
            label = f"{display_name(name)}: {above} above IS"
            axes.plot(ideal, theory, marker, alpha=0.6, linestyle="none", label=label, **look)
            (x, *ends), (y, *sides) = median_interval(ideal), median_interval(theory)
            errors = [[[abs(middle - end)] for end in both] for middle, both in ((x, ends), (y, sides))]
            look |= {"mfc": colour, "mec": style.ink, "ecolor": style.ink, "elinewidth": 1}
            axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt=marker, **look)
        axes.set_xlim(low - 0.02, 1.02)
        axes.set_ylim(low - 0.02, 1.02)
        axes.set_aspect("equal")
        axes.set_xlabel("Pearson r of IS with the network")
        axes.set_title(f"network, {steps} steps")
        axes.legend(
            loc="lower right", handletextpad=0.2, title="crosses: medians, 95 % intervals", title_fontsize=style.small
        )
        if len(network_steps) > 1:
            axes.set_title(chr(letter), loc="left", fontweight="bold")
    for axes in grid[:, 0]:
        axes.set_ylabel("Pearson r of theory with the network")
    for axes in grid.flat[len(network_steps) :]:
        axes.set_axis_off()
    return figure


@styled
def consistency(comparison: Comparison, *, style: Style = SCREEN) -> Figure:
    """The share of consistent pixels of every sample, for machines and network (Theorem 4.1); bars are medians."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in comparison.consistency:
        found.setdefault((row["machine"], row["source"], row["steps"]), []).append(row["consistency"])
    figure = new_figure(style, style.column, style.column * (0.13 + 0.06 * len(found)))
    axes = figure.subplots()
    titles = []
    for position, ((machine, source, steps), values) in enumerate(found.items()):
        # Apart from each other by a fixed disorder, for many have the same value.
        jitter = np.linspace(-0.22, 0.22, len(values))[np.argsort(np.argsort(np.sin(np.arange(len(values)) * 12.9)))]
        colour, marker = (style.ink, "^") if source == NETWORK else (style.colour(machine), "o")
        look: dict[str, Any] = {"ms": 0.3 * style.type, "mfc": "none", "mec": colour, "mew": 0.8, "linestyle": "none"}
        axes.plot(values, position + jitter, marker, **look)
        axes.plot([np.median(values)] * 2, [position - 0.32, position + 0.32], color=style.ink, linewidth=2)
        of = f"network, {steps} steps" if source == NETWORK else "own samples"
        titles.append(f"{display_name(machine)}: {of}")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of consistent pixels; bars: medians")
    axes.grid(axis="y", visible=False)
    return figure


@styled
def side_by_side(
    comparisons: Sequence[tuple[Comparison, int]], names: Sequence[str], *, style: Style = SCREEN
) -> Figure:
    """Medians of Pearson r with their 95 % bootstrap intervals, a row per run and a mark per machine.

    Args:
        comparisons: of every run, with the number of network steps to show.
        names: of the runs.
        style: how it looks.
    """
    figure = new_figure(style, style.column, style.column * (0.19 + 0.08 * len(comparisons)))
    axes = figure.subplots()
    machines = list(dict.fromkeys(name for comparison, _ in comparisons for name in comparison.names))
    shifts = np.linspace(-0.2, 0.2, len(machines))
    for marker, machine, shift in zip(itertools.cycle(MARKERS), machines, shifts, strict=False):
        found = {
            position + shift: median_interval(comparison.values(machine, steps))
            for position, (comparison, steps) in enumerate(comparisons)
            if machine in comparison.names
        }
        medians, low, high = np.array(list(found.values())).T
        spread = np.maximum([medians - low, high - medians], 0)
        look: dict[str, Any] = {
            "fmt": marker,
            "color": style.colour(machine),
            "ms": 0.6 * style.type,
            "label": display_name(machine),
        }
        axes.errorbar(medians, list(found), xerr=spread, **look)
    axes.set_yticks(range(len(names)), [plain(name, 32) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("median r with the network, 95 % interval")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside right upper")
    return figure
