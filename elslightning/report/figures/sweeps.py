"""The figure of a sweep: runs in, a matplotlib figure out."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elslightning.machines.registry import display_name
from elslightning.measurement.names import NETWORK
from elslightning.report.figures.style import SCREEN, Style, entries, legend, letters, new_figure, styled

QUANTITIES = {"pearson_r_median": "median Pearson r", "patch_size_mean": "mean patch size [pixels]"}
"""What a sweep is about, and the names of the axes."""
STYLES = (("-", "o"), ("--", "^"), (":", "s"), ("-.", "D"), ("-", "v"), ("--", "P"))
"""Line and marker."""
GRADIENTS = "network: side with 90 % of its gradient"
"""What stands for the network among patch sizes."""


def sweep(
    runs: Sequence[Mapping[str, Any]],
    x: str,
    *,
    columns: str | None = None,
    lines: str | None = None,
    title: str = "",
    style: Style = SCREEN,
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
        style: how it looks.
    """
    found = dict.fromkeys(tuple(name.split("/")[1:]) for run in runs for name in run if name.startswith("val/"))
    shown = [quantity for quantity in QUANTITIES if any(name[-1] == quantity for name in found if len(name) == 2)]
    if not shown:
        return None
    return _drawn(runs, shown, found, x, columns, lines, title, style=style)


@styled
def _drawn(
    runs: Sequence[Mapping[str, Any]],
    shown: Sequence[str],
    found: Mapping[tuple[str, ...], None],
    x: str,
    columns: str | None,
    lines: str | None,
    title: str,
    *,
    style: Style,
) -> Figure:
    panels, kinds = (list(dict.fromkeys(_get(run, key) for run in runs)) for key in (columns, lines))
    places = _places([run.get(x) for run in runs])
    width = max(style.column, 0.5 * style.column * len(panels))
    figure = new_figure(style, width, style.column * (0.2 + 0.4 * len(shown)))
    grid = figure.subplots(len(shown), len(panels), sharex=True, sharey="row", squeeze=False)
    for row, quantity in zip(grid, shown, strict=True):
        row[0].set_ylabel(QUANTITIES[quantity])
        machines = [name[0] for name in found if name[1:] == (quantity,)]
        for (axes, panel), (kind, look), machine in itertools.product(
            zip(row, panels, strict=True), zip(kinds, itertools.cycle(STYLES), strict=False), machines
        ):
            some = [run for run in runs if [_get(run, key) for key in (columns, lines)] == [panel, kind]]
            points = [(places[run.get(x)], run) for run in some]
            name = GRADIENTS if machine == NETWORK else display_name(machine)
            label = f"{name}, {lines}={kind}" if lines else name
            options = dict(zip(("linestyle", "marker"), look, strict=True))
            _line(axes, points, f"val/{machine}/{quantity}", label, color=style.colour(machine), **options)
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.set_title(f"{columns} = {panel}" if columns else "")
    for axes in grid[-1]:
        axes.set_xlabel(x)
        _set_scale(axes, places, letters(width / len(panels), style))
    legend(figure, entries(*grid.flat), style, "outside lower center")
    figure.suptitle(textwrap.fill(title, letters(0.9 * width, style)), fontsize=style.type)
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


def _set_scale(axes: Axes, places: Mapping[Any, float], most: int) -> None:
    """Logarithmic for numbers that span a factor of 8; ticks at the values if they are few, aslant if they are long."""
    numbers = all(map(_is_number, places))
    if numbers and min(places.values()) > 0 and max(places.values()) >= 8 * min(places.values()):
        axes.set_xscale("log")
    if not numbers or len(places) <= 8:
        words = [str(value) for value in places]
        aslant = sum(map(len, words)) + 3 * len(words) > most
        look: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if aslant else {}
        axes.set_xticks(list(places.values()), words, **look)
        axes.minorticks_off()
