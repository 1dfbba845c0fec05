"""The creativity map: novelty against fidelity; and the order parameter on the way from noise to image."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import display_name
from elslightning.measurement.order import Order
from elslightning.report.figures.style import (
    LINES,
    MARKERS,
    SCREEN,
    Style,
    legend,
    letters,
    new_figure,
    plain,
    styled,
    time_axis,
)

FIDELITY = {"fidelity": "fidelity: how sure a classifier is", "patch_precision": "patches like training patches"}
"""What the vertical axis may be, first of these that all points have."""
SHADES = ("bbels", "els", "ls", "es", "is")
"""Whose colours curves have that belong to no machine."""


@styled
def creativity_map(points: Sequence[Mapping[str, Any]], *, title: str = "", style: Style = SCREEN) -> Figure:
    """Novelty and fidelity of denoisers beside those of images, means with their 95 % bootstrap intervals.

    Args:
        points: each with `group`, whose points are joined in their order, or, for images, None; `label`; `colour`, a
            machine's name; `novelty` and one of `FIDELITY`, each with mean, low and high.
        title: of the figure.
        style: how it looks.
    """
    upright = next((name for name in FIDELITY if all(name in point for point in points)), "patch_precision")
    figure = new_figure(style, style.column, 0.8 * style.column)
    axes = figure.subplots()
    groups = dict.fromkeys(point["group"] for point in points if point["group"] is not None)
    entries = {}
    looks = itertools.cycle(zip(itertools.cycle(LINES), MARKERS, strict=False))
    for group, (line, marker) in zip(groups, looks, strict=False):
        own = [point for point in points if point["group"] == group]
        across, up = ([point[name]["mean"] for point in own] for name in ("novelty", upright))
        errors = [_errors(own, name) for name in ("novelty", upright)]
        colour = style.colour(own[0]["colour"])
        look: dict[str, Any] = {"fmt": marker, "linestyle": line, "ms": 0.6 * style.type, "elinewidth": 0.5}
        entries[group] = axes.errorbar(across, up, xerr=errors[0], yerr=errors[1], color=colour, **look)
        for point, x, y in zip(own, across, up, strict=True):
            if point["label"]:
                place: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": style.small}
                axes.annotate(plain(str(point["label"])), (x, y), color=colour, **place)
    for point in [point for point in points if point["group"] is None]:
        x, y = point["novelty"]["mean"], point[upright]["mean"]
        mark = point["label"] == "held-out images"
        axes.plot(x, y, "*" if mark else "x", ms=(1.4 if mark else 0.7) * style.type, color=style.ink)
        right = x > 0.75
        up = point["label"] == "shuffled patches"  # which lie close above noise
        place = {
            "xytext": (-6 if right else 6, 3 if up else -10),
            "textcoords": "offset points",
            "fontsize": style.small,
        }
        axes.annotate(point["label"], (x, y), ha="right" if right else "left", **place)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.08)
    axes.set_xlabel("novelty: share of pixels not from the main training image")
    axes.set_ylabel(FIDELITY[upright])
    if title:
        figure.suptitle(textwrap.fill(title, letters(0.9 * style.column, style)), fontsize=style.type)
    if entries:
        legend(figure, entries, style, "outside lower center")
    return figure


def _errors(points: Sequence[Mapping[str, Any]], name: str) -> list[list[float]]:
    """How far the intervals of a measure reach below and above its means."""
    below = [max(0.0, point[name]["mean"] - point[name]["low"]) for point in points]
    return [below, [max(0.0, point[name]["high"] - point[name]["mean"]) for point in points]]


@styled
def order_curve(orders: Mapping[str, Order], schedule: Schedule, *, style: Style = SCREEN) -> Figure:
    """The order parameter against time, the median over pixels and samples with quartiles, for each of some processes;
    and below the share of pixels whose likeliest candidate lies in the image that most have theirs in.

    Args:
        orders: by label.
        schedule: gives the times.
        style: how it looks.
    """
    figure = new_figure(style, style.column, 0.9 * style.column)
    above, below = figure.subplots(2, sharex=True)
    entries = {}
    shades = [style.colour(name) for name in itertools.islice(itertools.cycle(SHADES), len(orders))]
    for (label, found), shade, line in zip(orders.items(), shades, itertools.cycle(LINES), strict=False):
        t, values = schedule.time(found.alpha_bar), found.order.flatten(1).double()
        low, middle, high = (values.quantile(share, dim=1) for share in (0.25, 0.5, 0.75))
        above.fill_between(t, low, high, color=shade, alpha=0.15, linewidth=0)
        (entries[label],) = above.plot(t, middle, color=shade, linestyle=line)
        below.plot(t, found.main_share.mean(dim=1), color=shade, linestyle=line)
    above.axhline(0, color=style.ink, linewidth=0.6, linestyle=(0, (4, 3)))
    above.set_ylabel("order: 1 - entropy / ln N")
    below.set_ylabel("share in the main image")
    below.set_ylim(-0.03, 1.03)
    time_axis(below)
    legend(figure, entries, style, "outside upper center")
    return figure


def image_points(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A control as a point of the map."""
    return {"group": None, "label": name, "colour": "", **summary}


def machine_point(name: str, label: str, summary: Mapping[str, Any], group: str | None = None) -> dict[str, Any]:
    """A denoiser as a point of the map, joined with others of its group, by default of its name."""
    return {"group": group or display_name(name), "label": label, "colour": name, **summary}
