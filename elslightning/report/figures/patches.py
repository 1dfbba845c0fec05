"""The scale of the patches: what machines were calibrated to, why, and what the network itself looks at (Fig. 4)."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.machines.registry import display_name
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.gradients import SHARES, GradientField, effective_size
from elslightning.report.figures.style import (
    LINES,
    SCREEN,
    Style,
    entries,
    legend,
    new_figure,
    percent,
    plain_logarithm,
    styled,
    time_axis,
)

FLOOR = 1e-3
"""A factor of 1000 below its peak a gradient is of no account, and logarithms need an end."""
LEFT = {
    "cosine": ("1 − cosine of the two ε", 1.0),
    "mse": ("mean squared error of the two ε", 0.0),
    "heldout": ("mean squared error on held-out images", 0.0),
}
"""By calibration objective: what is left between theory and network, and the agreement at which nothing is."""


@styled
def patch_size(
    tables: Mapping[str, ParameterTable],
    schedule: Schedule,
    *,
    calibrations: Mapping[str, Calibration] | None = None,
    field: GradientField | None = None,
    style: Style = SCREEN,
) -> Figure:
    """Fig. 4b: the patch sizes against time beside the network's own receptive field, and the disagreement with the
    network that is left at them, with its quartiles over samples.

    Args:
        tables: patch sizes by machine.
        schedule: gives the times.
        calibrations: the evidence, by machine; without any, the disagreement is left out.
        field: the network's gradients, if they are known.
        style: how it looks.
    """
    calibrations = _sized(calibrations or {})
    figure, (top, *others) = _stack(style, 2 if calibrations else 1)
    _windows(top, tables, schedule, field, style)
    for axes in others:
        _left_over(axes, calibrations, schedule, style)
    _finish(figure, style)
    return figure


@styled
def scales(
    tables: Mapping[str, ParameterTable],
    schedule: Schedule,
    *,
    calibrations: Mapping[str, Calibration] | None = None,
    field: GradientField | None = None,
    style: Style = SCREEN,
) -> Figure:
    """The patch sizes against time, and beneath them for every machine how much worse each size tried agrees than the
    best one at that noise level; circles mark the calibrated sizes.

    Arguments as in `patch_size`.
    """
    known = _sized(calibrations or {})
    figure, (top, *others) = _stack(style, 1 + len(known))
    _windows(top, tables, schedule, field, style)
    for axes, (name, calibration) in zip(others, known.items(), strict=True):
        _differences(axes, name, calibration, schedule, style)
    _finish(figure, style)
    return figure


@styled
def receptive_field(
    field: GradientField,
    tables: Mapping[str, ParameterTable],
    schedule: Schedule,
    *,
    machine: str | None = None,
    count: int = 5,
    windows: bool = True,
    style: Style = SCREEN,
) -> Figure:
    """Fig. 4a: the network's gradients around the centre pixel for eps and for x0, from noise to image; beneath them,
    their size beside the machines' patch sizes (Fig. 4b).

    A solid frame holds 90 % of the gradient; a dotted one is the patch that a machine was calibrated to.

    Args:
        field: the gradients.
        tables: patch sizes by machine.
        schedule: gives the times.
        machine: whose patches are framed; None for no machine.
        count: number of noise levels shown, evenly spread; fewer if there are fewer steps.
        windows: whether the sizes stand beneath.
        style: how it looks.
    """
    steps = np.unique(np.linspace(0, len(field.alpha_bar) - 1, count).round().astype(int)).tolist()
    height = style.column * (0.46 if style.small > 6 else 0.5)
    figure = new_figure(style, style.column, height + (0.55 * style.column if windows else 0))
    ratios = (1, 1, 2.2) if windows else (1, 1)
    grid = figure.add_gridspec(len(ratios), len(steps), height_ratios=ratios)
    maps = np.array([[figure.add_subplot(grid[line, place]) for place in range(len(steps))] for line in range(2)])
    table, times = None if machine is None else tables[machine], schedule.time(field.alpha_bar)
    table = table if table is not None and PATCH_SIZE in table.columns else None
    for line, gradients in zip(maps, (field.gradient, field.x0_gradient), strict=True):
        framed = effective_size(gradients, 0.9).tolist()
        for axes, step in zip(line, steps, strict=True):
            gradient = gradients[step].double().numpy()
            picture = axes.imshow(np.maximum(gradient / (gradient.max() or 1), FLOOR), norm=LogNorm(FLOOR, 1))
            _frame(axes, gradient.shape, framed[step], linestyle="-")
            if table is not None:
                nearest = (schedule.time(table.alpha_bar) - times[step]).abs().argmin()
                _frame(axes, gradient.shape, int(table.patch_size[nearest]), linestyle=(0, (1, 1)))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    for axes, label in zip(maps[:, 0], ("|∂ε / ∂xₜ|", "|∂x₀ / ∂xₜ|"), strict=True):
        axes.set_ylabel(label)
    for axes, step in zip(maps[0], steps, strict=True):
        axes.set_title(f"t = {float(times[step]):.2f}")
    bar = figure.colorbar(picture, ax=list(maps.flat), aspect=18, pad=0.02)
    bar.set_label("relative to the peak")
    plain_logarithm(bar.ax.yaxis)
    frames = "Frames: 90 % of the gradient" + ("" if machine is None else f"; dotted: patch of {display_name(machine)}")
    if windows:
        beneath = figure.add_subplot(grid[2, :])
        _windows(beneath, tables, schedule, field, style)
        time_axis(beneath)
        beneath.set_title(frames, loc="left", fontsize=style.small)
        legend(figure, entries(beneath), style, "outside lower center")
    else:
        figure.supxlabel(frames, fontsize=style.small)
    return figure


def _sized(calibrations: Mapping[str, Calibration]) -> dict[str, Calibration]:
    """Those of machines that have patch sizes."""
    return {name: found for name, found in calibrations.items() if found.patch_sizes}


def _stack(style: Style, count: int) -> tuple[Figure, list[Axes]]:
    """Panels above each other that share their time axis."""
    figure = new_figure(style, style.column, style.column * (0.2 + 0.4 * count))
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _finish(figure: Figure, style: Style) -> None:
    time_axis(figure.axes[-1])
    legend(figure, entries(figure.axes[0]), style, "outside upper center")
    for letter, axes in zip("abcdefgh", figure.axes if len(figure.axes) > 1 else (), strict=False):
        axes.set_title(letter, loc="left", fontweight="bold")


def _look(names: Mapping[str, Any], style: Style) -> dict[str, dict[str, Any]]:
    return {name: {"color": style.colour(name), "linestyle": LINES[i % len(LINES)]} for i, name in enumerate(names)}


def _windows(
    axes: Axes,
    tables: Mapping[str, ParameterTable],
    schedule: Schedule,
    field: GradientField | None,
    style: Style,
) -> None:
    """The machines' patch sizes, the windows that hold shares of the gradient of the network's x0, and the window that
    its architecture allows, unless it is far beyond."""
    tables = {name: table for name, table in tables.items() if PATCH_SIZE in table.columns}
    for (name, table), look in zip(tables.items(), _look(tables, style).values(), strict=True):
        t = schedule.time(table.alpha_bar)
        axes.step(t, table.patch_size, where="mid", label=display_name(name), **look)
    if field is not None:
        t, (low, middle, high) = schedule.time(field.alpha_bar), SHARES
        band = f"{100 * low:.0f}–{percent(high)} of gradient"
        axes.fill_between(t, field.size(low), field.size(high), color=style.rule, alpha=0.4, linewidth=0, label=band)
        axes.plot(t, field.size(middle), color=style.ink, linewidth=0.8, label=f"{percent(middle)} of gradient")
        if field.formal is not None and field.formal <= 2 * max(map(int, field.size(high))):
            look = {"color": style.ink, "linewidth": 0.8, "linestyle": (0, (1, 2))}
            axes.axhline(field.formal, label=f"receptive field, {field.formal}", **look)
    axes.set_ylabel("patch size, window [pixels]")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _differences(axes: Axes, name: str, calibration: Calibration, schedule: Schedule, style: Style) -> None:
    """How much worse every patch size tried agrees than the best one of the same noise level."""
    median = calibration.of_sizes.double().quantile(0.5, dim=2).nan_to_num(-math.inf)  # (step, size)
    worse = median.amax(dim=1, keepdim=True) - median
    t = schedule.time(calibration.alpha_bar)
    shades = colormaps["cividis"](np.linspace(0.3, 0.85, len(calibration.patch_sizes)))
    for size, curve, shade, line in zip(calibration.patch_sizes, worse.T, shades, itertools.cycle(LINES), strict=False):
        axes.plot(t, curve, color=shade, linestyle=line, label=f"P = {size}")
    taken = _taken(calibration, schedule)
    chosen = [float(worse[step, place]) for step, place in taken.items()]
    look: dict[str, Any] = {
        "ms": style.type / 2,
        "mfc": "none",
        "mec": style.ink,
        "linestyle": "none",
        "label": "calibrated",
    }
    axes.plot(t[list(taken)], chosen, "o", **look)
    # Straight near 0, where the best sizes are, and logarithmic where the others are.
    beyond = worse[(worse > 0) & worse.isfinite()]
    decade = math.floor(math.log10(float(beyond.max()))) if len(beyond) else 0
    powers = [10.0**power for power in range(decade - 3, decade + 1)]
    axes.set_yscale("symlog", linthresh=powers[0])
    axes.set_yticks([0, *powers], [f"{value:g}" for value in (0, *powers)])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set_ylabel(f"{display_name(name)}: median {calibration.objective},\nworse than the best by")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.4)


def _taken(calibration: Calibration, schedule: Schedule) -> dict[int, int]:
    """The place of the calibrated size among those tried, by step; of a table from elsewhere, those that were tried."""
    scales, sizes = calibration.scales, calibration.patch_sizes
    apart = schedule.time(scales.alpha_bar)[:, None] - schedule.time(calibration.alpha_bar)[None, :]
    found = dict(zip(apart.abs().argmin(dim=1).tolist(), scales.patch_size.tolist(), strict=True))
    return {step: sizes.index(size) for step, size in sorted(found.items()) if size in sizes}


def _left_over(axes: Axes, calibrations: Mapping[str, Calibration], schedule: Schedule, style: Style) -> None:
    """What is left between every machine and the network at its patch sizes: medians and quartiles over samples."""
    objective = next(iter(calibrations.values())).objective
    label, most = LEFT.get(objective, (f"median disagreement ({objective})", 0.0))
    lowest = np.inf
    looks = _look(calibrations, style)
    for name, calibration in calibrations.items():
        taken = _taken(calibration, schedule)
        if not taken:
            continue
        at = torch.stack([calibration.of_sizes[step, place] for step, place in taken.items()])
        low, middle, high = most - at.double().quantile(torch.tensor([0.75, 0.5, 0.25], dtype=torch.float64), dim=1)
        t = schedule.time(calibration.alpha_bar[list(taken)])
        axes.fill_between(t, low, high, color=looks[name]["color"], alpha=0.18, linewidth=0)
        axes.plot(t, middle, label=display_name(name), **looks[name])
        lowest = min(lowest, float(low.min()))
    axes.set_ylabel(label)
    if lowest > 0:
        axes.set_yscale("log")
        plain_logarithm(axes.yaxis)


def _frame(axes: Axes, shape: tuple[int, ...], size: int, **look: Any) -> None:
    """The window of a size around the centre pixel, cut at the border of the image."""
    top, left = (max(side // 2 - size / 2, -0.5) for side in shape)
    bottom, right = (min(side // 2 + size / 2, side - 0.5) for side in shape)
    # Black beneath white is seen on every colour.
    for colour, width in (("black", 1.6), ("white", 0.8)):
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, **look)
        )
