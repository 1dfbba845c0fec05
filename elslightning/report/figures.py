"""Figures: tensors in, matplotlib figures out."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import BASELINE, COLOURS, display_name, the_theory
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.gradients import SHARES, GradientField, effective_size
from elslightning.measurement.result import Result
from elslightning.system.files import replacing


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure in the format of the path's ending, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, image: Tensor) -> None:
    """An image (channel, height, width) in [-1, 1], clipped."""
    pixels = np.clip((image.float().cpu().numpy().transpose(1, 2, 0) + 1) / 2, 0, 1)
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def image_rows(rows: Mapping[str, Tensor], titles: Sequence[str] = ()) -> Figure:
    """Images in named rows, (n, channel, height, width) each; `titles` stand above the columns."""
    columns = max(len(images) for images in rows.values())
    figure = _figure(1.1 + 0.75 * columns, 0.35 + 0.8 * len(rows))
    grid = np.atleast_2d(figure.subplots(len(rows), columns, squeeze=False))
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axes, image in zip(line, images, strict=False):
            _show(axes, image)
        for axes in line[len(images) :]:
            axes.axis("off")
    for axes, title in zip(grid[0], titles, strict=False):
        axes.set_title(title, fontsize=7)
    return figure


def pairs(comparison: Comparison, machine: str, count: int = 12) -> Figure:
    """Samples side by side: a row per machine, the network beneath; all from the same noise.

    Args:
        comparison: the samples.
        machine: whose Pearson r stands above each pair.
        count: number of pairs, taken from the first.
    """
    steps, truth = next(iter(comparison.network.items()))
    rows = {display_name(name): comparison.samples(name, steps)[:count] for name in comparison.names}
    rows[f"network, {steps} steps"] = truth[:count]
    r = comparison.values(machine, steps)[:count].tolist()
    figure = image_rows(rows, [f"r = {value:.2f}" for value in r])
    figure.suptitle(f"Theory above, network beneath; r of {display_name(machine)} with the network", fontsize=9)
    return figure


def scatter(comparison: Comparison, machine: str) -> Figure:
    """Pearson r of one machine against that of the ideal score machine, a point per pair."""
    figure = _figure(4.2, 4.2)
    axes = figure.subplots()
    for marker, steps in zip(itertools.cycle("o^sDvP"), comparison.network, strict=False):
        theory, ideal = comparison.values(machine, steps), comparison.values(BASELINE, steps)
        share = comparison.share_beating_baseline(machine, steps)
        axes.scatter(
            ideal,
            theory,
            s=14,
            alpha=0.7,
            marker=marker,
            label=f"network {steps} steps: {share:.0%} above IS",
        )
    low = min(0.0, *axes.get_xlim(), *axes.get_ylim())
    axes.plot([low, 1], [low, 1], color="0.6", linewidth=0.8)
    axes.set_xlim(low, 1.02)
    axes.set_ylim(low, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("Pearson r of IS with the network")
    axes.set_ylabel(f"Pearson r of {display_name(machine)} with the network")
    axes.legend(loc="lower right", fontsize=7)
    return figure


def scales(calibrations: Mapping[str, Calibration], schedule: Schedule) -> Figure:
    """Calibrated patch size against time, and beneath it the agreement curves of every patch size tried."""
    figure = _figure(4.4 * len(calibrations), 5.2)
    grid = figure.subplots(2, len(calibrations), sharex=True, squeeze=False)
    for (top, bottom), (name, calibration) in zip(grid.T, calibrations.items(), strict=True):
        table = calibration.scales
        top.step(schedule.time(table.alpha_bar), table.patch_size, where="mid", color=COLOURS.get(name, "black"))
        top.set_title(display_name(name), fontsize=9)
        top.set_ylabel("calibrated patch size [pixels]")
        top.set_yticks(calibration.patch_sizes)
        t = schedule.time(calibration.alpha_bar)
        shades = np.linspace(0.1, 0.9, len(calibration.patch_sizes))
        for index, (size, shade) in enumerate(zip(calibration.patch_sizes, shades, strict=True)):
            curve = calibration.agreement[:, index].median(dim=1).values
            bottom.plot(t, curve, color=_shade(shade), linewidth=1, label=f"P = {size}")
        bottom.set_xlabel("time t (0: image, 1: noise)")
        bottom.set_ylabel(f"median agreement ({calibration.objective})")
        bottom.legend(fontsize=6, ncols=2)
    return figure


def receptive_field(
    field: GradientField, tables: Mapping[str, ParameterTable], schedule: Schedule, count: int = 7
) -> Figure:
    """The network's gradients around the centre pixel at some noise levels (Fig. 4a), and beneath them their size
    beside the machines' patch sizes, against time (Fig. 4b).

    Args:
        field: the gradients.
        tables: the machines' patch sizes by name.
        schedule: gives the times.
        count: number of maps, in the order of their times; fewer if there are fewer steps.
    """
    figure = _figure(8.4, 6)
    shown = np.unique(np.linspace(0, len(field.alpha_bar) - 1, count).round().astype(int)).tolist()[::-1]
    grid = figure.add_gridspec(3, len(shown), height_ratios=(1, 1, 2))
    middle, t = SHARES[len(SHARES) // 2], schedule.time(field.alpha_bar)
    maps = np.array([[figure.add_subplot(grid[line, column]) for column in range(len(shown))] for line in range(2)])
    for line, name, gradients in ((0, "eps", field.gradient), (1, "x0", field.x0_gradient)):
        sizes = effective_size(gradients, middle).tolist()
        for axes, step in zip(maps[line], shown, strict=True):
            gradient = gradients[step].double().numpy()
            # A factor of 1000 below its peak a gradient is of no account, and logarithms need an end.
            picture = axes.imshow(np.maximum(gradient / (gradient.max() or 1), 1e-3), norm=LogNorm(1e-3, 1))
            left, top = (side // 2 - sizes[step] / 2 for side in reversed(gradient.shape))
            axes.add_patch(Rectangle((left, top), sizes[step], sizes[step], fill=False, edgecolor="white"))
            axes.set_xticks([])
            axes.set_yticks([])
        maps[line, 0].set_ylabel(f"|∂{name} / ∂x_t|", fontsize=8)
    for axes, step in zip(maps[0], shown, strict=True):
        axes.set_title(f"t = {float(t[step]):.2f}", fontsize=8)
    figure.colorbar(picture, ax=list(maps.flat), label=f"relative to the peak; {middle:.0%} framed")
    axes = figure.add_subplot(grid[2, :])
    for share, style in zip(SHARES, (":", "-", "--"), strict=True):
        label = f"network: {share:.0%} of the gradient of x0"
        axes.plot(t, field.size(share), color="black", linestyle=style, linewidth=1, label=label)
    if field.formal is not None:
        axes.axhline(field.formal, color="0.6", label="network: formal receptive field")
    for name, table in tables.items():
        colour = COLOURS.get(name)
        axes.step(schedule.time(table.alpha_bar), table.patch_size, where="mid", color=colour, label=display_name(name))
    axes.set_xlabel("time t (0: image, 1: noise)")
    axes.set_ylabel("side of the window [pixels]")
    figure.legend(fontsize=7, loc="outside lower center", ncols=3)
    return figure


def _shade(position: float) -> tuple[float, float, float, float]:
    red, green, blue, alpha = colormaps["viridis"](position)
    return red, green, blue, alpha


def training_curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Losses against optimizer steps, on logarithmic axes: a curve per name, as (step, value) pairs."""
    figure = _figure(5.2, 3.4)
    axes = figure.subplots()
    for name, points in history.items():
        axes.plot([step for step, _ in points], [value for _, value in points], marker=".", ms=3, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("mean squared error")
    if history:
        axes.legend(fontsize=7)
    return figure


def of_result(result: Result, schedule: Schedule) -> dict[str, Figure]:
    """The figures of a result, by the name of their file."""
    drawn: dict[str, Figure] = {}
    if result.calibrations:
        drawn["scales"] = scales(result.calibrations, schedule)
    if result.gradients is not None:
        drawn["receptive_field"] = receptive_field(result.gradients, result.scales, schedule)
    if result.comparison is not None:
        theory = the_theory(result.comparison.names)
        assert theory is not None
        drawn["pairs"] = pairs(result.comparison, theory)
        if BASELINE in result.comparison.names and theory != BASELINE:
            drawn["scatter"] = scatter(result.comparison, theory)
    return drawn


def save_all(drawn: Mapping[str, Figure], directory: str | Path) -> list[Path]:
    """Writes figures as figures/NAME.png of a run directory; returns the paths."""
    paths = [Path(directory) / "figures" / f"{name}.png" for name in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        save(figure, path)
    return paths


def first_samples(samples: Tensor) -> Figure:
    """The first 64 samples (batch, channel, height, width), eight in a row."""
    parts = zip(range(0, 64, 8), samples[:64].split(8), strict=False)
    return image_rows({f"{start}": part for start, part in parts})
