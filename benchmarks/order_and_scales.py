"""Where the scales of a trained network stand on the curve of the order parameter over the size of the window.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/order_and_scales.py RUN [--steps 20] [--samples 32]

RUN is the directory of a training. At every noise level of the network's own reverse process, and for every window of
bbELS, the order parameter 1 - entropy / ln N of bbELS at the network's states is averaged over pixels. Where its mean
over samples turns is said in three ways: it comes to 1/2, between two windows on a straight line over log P; it has
made half of its rise from the least window to the widest, likewise; and it is steepest between the two windows where it
gains most per log P. Beside it stand the calibrated scale of the network (the median over samples of the size that
agrees best) and that with which held-out images are denoised best. Intervals: bootstrap over samples, 95 %.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import elslightning as els
from elslightning.measurement.heldout import heldout
from elslightning.runs.experiment import load_data, schedule_of

DRAWS = 1000
"""Of the bootstrap."""
LABELS = {"half": "order 1/2", "network": "the network's scale", "heldout": "held-out images' scale"}
Array = NDArray[np.float64]


def crossing(order: Array, sizes: Array, height: float | Array = 0.5) -> Array:
    """(levels, sizes) -> (levels,), the size at which the order first comes to a height; the least where it is above
    from the first on, infinite where it never is."""
    height = np.broadcast_to(height, order.shape[:1])
    above = order >= height[:, None]
    first = above.argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    low, high = (np.take_along_axis(order, at[..., None], -1)[..., 0] for at in (before, first))
    share = np.where(first > 0, (height - low) / np.where(high > low, high - low, 1), 0)
    found = np.exp(np.log(sizes[before]) * (1 - share) + np.log(sizes[first]) * share)
    return np.where(above.any(axis=-1), found, np.inf)


def steepest(order: Array, sizes: Array) -> Array:
    """(levels, sizes) -> (levels,), the geometric mean of the two sizes between which it gains most per log size."""
    at = (np.diff(order, axis=-1) / np.diff(np.log(sizes))).argmax(axis=-1)
    return np.sqrt(sizes[at] * sizes[at + 1])


def risen(order: Array, sizes: Array) -> Array:
    """(levels, sizes) -> (levels,), the size at which the order is halfway between its first value and its last."""
    return crossing(order, sizes, (order[:, 0] + order[:, -1]) / 2)


def interval(values: Array) -> str:
    """The ends of a bootstrap interval."""
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return f"({low:.2f} … {high:.2f})"


def measured(run: Path, steps: int, samples: int, sizes: list[int]) -> dict[str, Array]:
    """Order, agreement with the network, and error on held-out images, (steps, sizes, samples) each, and the levels."""
    known = els.read_run(run)
    network, schedule = els.load_network(run), schedule_of(known)
    data = load_data({"data": known.config["data"]})
    images, labels = data.train_images, data.train_labels if network.conditional else None
    noise = torch.randn(samples, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    clean, classes = data.val_images[:samples], None if labels is None else data.val_labels[:samples]
    machine = els.MACHINES["bbels"](images, labels, scales=sizes[0])
    asked = {"steps": steps, "patch_sizes": sizes, "noise": noise, "labels": classes}
    agreement = els.calibrate(network, machine, schedule, **asked).agreement
    best = heldout(machine, schedule, images=clean, **asked)
    orders = []
    for size in sizes:
        canvas = els.Canvas(els.MACHINES["bbels"](images, labels, scales=size))
        found = els.order_parameter(canvas, noise, schedule, steps, classes, guide=network)
        orders.append(found.order.flatten(2).double().mean(dim=2))
        print(f"window {size}: order {orders[-1].mean(dim=1).numpy().round(2).tolist()}", flush=True)
    return {
        "alpha_bar": schedule.noise_levels(steps).numpy(),
        "sizes": np.array(sizes, dtype=float),
        "order": torch.stack(orders, dim=1).numpy(),
        "agreement": agreement.double().numpy(),
        "heldout": best.agreement.double().numpy(),
    }


def turned(found: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    """By name a value per noise level, and (draws, levels) of the bootstrap."""
    sizes, count = found["sizes"], found["order"].shape[2]
    best = sizes[found["agreement"].argmax(axis=1)]  # (levels, samples)

    def network(rows: Array) -> Array:
        return np.quantile(best[:, rows], 0.5, axis=-1, method="lower")

    def at_scale(rows: Array) -> Array:
        at = np.searchsorted(sizes, network(rows))
        return np.take_along_axis(found["order"][..., rows].mean(axis=2), at[:, None], 1)[:, 0]

    values: dict[str, Callable[[Array], Array]] = {
        "network": network,
        "heldout": lambda rows: sizes[found["heldout"][..., rows].mean(axis=2).argmax(axis=1)],
        "half": lambda rows: crossing(found["order"][..., rows].mean(axis=2), sizes),
        "half the rise": lambda rows: risen(found["order"][..., rows].mean(axis=2), sizes),
        "steepest": lambda rows: steepest(found["order"][..., rows].mean(axis=2), sizes),
        "order at the scale": at_scale,
    }
    generator = np.random.default_rng(0)
    draws = generator.integers(0, count, (DRAWS, count))
    return {
        name: (value(np.arange(count)), np.stack([value(rows) for rows in draws])) for name, value in values.items()
    }


def drawn(found: dict[str, Array], values: dict[str, tuple[Array, Array]], title: str) -> Figure:
    """Windows over noise levels: where the order is a half, where it is steepest, and both scales."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    levels, order = found["alpha_bar"], found["order"].mean(axis=2)
    shown = axes.pcolormesh(levels, found["sizes"], order.T, cmap="RdBu", vmin=0, vmax=1, shading="nearest")
    figure.colorbar(shown, label="order: 1 - entropy / ln N")
    looks = {"half": "k-", "half the rise": "k--", "steepest": "k:", "network": "wo", "heldout": "kx"}
    for name, look in looks.items():
        axes.plot(levels, values[name][0], look, ms=5, mec="k", label=LABELS.get(name, name))
    axes.set_yscale("log")
    axes.set_yticks(found["sizes"], [f"{size:g}" for size in found["sizes"]], minor=False)
    axes.set_yticks([], minor=True)
    axes.set_xlabel("alpha_bar: from noise to image")
    axes.set_ylabel("window, pixels")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 3, 5, 7, 9, 11, 13, 15])
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--title", default="")
    asked = parser.parse_args()
    found = measured(asked.run, asked.steps, asked.samples, asked.sizes)
    values = turned(found)
    print("| alpha_bar | " + " | ".join(values) + " |")
    for level, alpha_bar in enumerate(found["alpha_bar"]):
        cells = [f"{value[level]:.2f} {interval(draws[:, level])}" for value, draws in values.values()]
        print(f"| {alpha_bar:.3f} | " + " | ".join(cells) + " |")
    for name in ("half", "half the rise", "steepest", "heldout"):
        # The mean over noise levels of how many times larger one is than the other, whichever it is.
        apart = [np.abs(np.log2(values["network"][at]) - np.log2(values[name][at])) for at in (0, 1)]
        usable = np.isfinite(apart[1]).all(axis=0)
        print(
            f"the network's scale and {name}: a factor of {2 ** apart[0][usable].mean():.2f} "
            f"{interval(2 ** apart[1][:, usable].mean(axis=1))} apart, over {usable.sum()} noise levels"
        )
    if asked.figure is not None:
        drawn(found, values, asked.title).savefig(asked.figure, dpi=150)


if __name__ == "__main__":
    main()
