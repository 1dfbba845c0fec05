"""The figure of a sweep: runs in, a matplotlib figure out."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elslightning.machines.registry import COLOURS, display_name

QUANTITIES = {"pearson_r_median": "median Pearson r", "patch_size_mean": "mean patch size [pixels]"}
"""What a sweep is about, and the names of the axes."""
STYLES = (("-", "o"), ("--", "^"), (":", "s"), ("-.", "D"), ("-", "v"), ("--", "P"))
"""Line and marker."""


def sweep(
    runs: Sequence[Mapping[str, Any]],
    x: str,
    *,
    columns: str | None = None,
    lines: str | None = None,
    title: str = "",
) -> Figure | None:
    """Agreement and patch size of every machine against a setting; None if no run has either.

    Runs that differ in nothing shown, their seeds for example, are dots with a line through their medians; bars are
    the intervals of single runs. The network's patch size is that which holds 90 % of its gradient.

    Args:
        runs: settings and logged scalars by name, `val/<machine>/pearson_r_median` and the like.
        x: the setting on the horizontal axis, logarithmic if its values span a factor of 8.
        columns: the setting that tells columns of panels apart; None for one column.
        lines: the setting that tells styles of lines apart; None for one style.
        title: stands above.
    """
    found = dict.fromkeys(tuple(name.split("/")[1:]) for run in runs for name in run if name.startswith("val/"))
    shown = [quantity for quantity in QUANTITIES if any(name[-1] == quantity for name in found if len(name) == 2)]
    if not shown:
        return None
    panels, styles = (list(dict.fromkeys(_get(run, key) for run in runs)) for key in (columns, lines))
    places = _places([run.get(x) for run in runs])
    figure = Figure(figsize=(1.4 + 3.2 * len(panels), 1.4 + 2.6 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), len(panels), sharex=True, sharey="row", squeeze=False)
    for row, quantity in zip(grid, shown, strict=True):
        row[0].set_ylabel(QUANTITIES[quantity])
        machines = [name[0] for name in found if name[1:] == (quantity,)]
        for (axes, panel), (style, look), machine in itertools.product(
            zip(row, panels, strict=True), zip(styles, itertools.cycle(STYLES), strict=False), machines
        ):
            some = [run for run in runs if [_get(run, key) for key in (columns, lines)] == [panel, style]]
            points = [(places[run.get(x)], run) for run in some]
            name = "network's gradients" if machine == "network" else display_name(machine)
            label = f"{name}, {lines}={style}" if lines else name
            options = dict(zip(("linestyle", "marker"), look, strict=True))
            _line(axes, points, f"val/{machine}/{quantity}", label, color=COLOURS.get(machine, "black"), **options)
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.set_title(f"{columns} = {panel}" if columns else "", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel(x)
        _set_scale(axes, places)
    handles = [pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    unique = {label: handle for handle, label in handles}
    figure.legend(unique.values(), unique.keys(), fontsize=7, loc="outside lower center", ncols=4)
    figure.suptitle(title, fontsize=9)
    return figure


def _line(axes: Axes, points: Sequence[tuple[float, Mapping[str, Any]]], name: str, label: str, **look: Any) -> None:
    """One scalar of runs at their places: dots, intervals where there are any, and a line through the medians."""
    by_place: dict[float, list[float]] = {}
    for place, run in points:
        if run.get(name) is None:
            continue
        by_place.setdefault(place, []).append(run[name])
        low, high = (run.get(name.replace("_median", end)) for end in ("_low", "_high"))
        if name.endswith("_median") and low is not None and high is not None:
            axes.vlines(place, low, high, color=look["color"], alpha=0.3, linewidth=1)
    if by_place:
        each = [(place, value) for place, values in by_place.items() for value in values]
        axes.plot(*zip(*each, strict=True), **(look | {"linestyle": "none"}), alpha=0.4, ms=3)
        middle = [(place, float(np.median(by_place[place]))) for place in sorted(by_place)]
        axes.plot(*zip(*middle, strict=True), **look, ms=4, linewidth=1.2, label=label)


def _get(run: Mapping[str, Any], key: str | None) -> Any:
    return None if key is None else run.get(key)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Where values stand on an axis: numbers where they are, anything else one after the other."""
    distinct = list(dict.fromkeys(values))
    if all(map(_is_number, distinct)):
        return {value: float(value) for value in distinct}
    return {value: float(index) for index, value in enumerate(distinct)}


def _set_scale(axes: Axes, places: Mapping[Any, float]) -> None:
    """Logarithmic for numbers that span a factor of 8; ticks at the values if they are few."""
    numbers = all(map(_is_number, places))
    if numbers and min(places.values()) > 0 and max(places.values()) >= 8 * min(places.values()):
        axes.set_xscale("log")
    if not numbers or len(places) <= 8:
        axes.set_xticks(list(places.values()), [str(value) for value in places], fontsize=7)
        axes.minorticks_off()
