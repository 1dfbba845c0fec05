"""What turns the headline of a result over: it stands before the table, in words that no reader of it can miss."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from elslightning.machines.registry import TRIVIAL, display_name
from elslightning.measurement.novelty import BEYOND

MOST_OUTSIDE = 0.05
"""Samples with a greater share of their values outside of [-1, 1] are no images."""
HIGH = 0.5
"""A median r that looks like agreement."""
STILL_FALLING = 0.02
"""A loss that fell by more than this share over the last fifth of training had not converged."""
FEWEST_LOSSES = 10
"""With fewer values than this there is no telling where a loss was going."""
LOSSES = ("val/loss", "train/loss")
"""The losses that say whether a network has converged, the better one first."""

Losses = Mapping[str, Sequence[tuple[int, float]]]
"""(optimizer step, value) in order, by name."""


def alarms(summary: Mapping[str, Any], losses: Losses) -> list[str]:
    """All of them, the gravest first: samples that are no images, a negative R² beside a high r, and a network that has
    not converged, or of which that cannot be told.

    Args:
        summary: of the comparison, or empty; see `elslightning.measurement.comparison.Comparison.summary`.
        losses: of the network's training, as far as they are known; of none at all nothing is said.
    """
    return [*not_images(summary), *_worse_than_nothing(summary), *_convergence(losses)]


def not_images(summary: Mapping[str, Any]) -> Iterator[str]:
    """Says so of a network whose samples have values that no image has."""
    for steps, entry in summary.get("network", {}).items():
        if entry["outside"] > MOST_OUTSIDE:
            yield (
                f"Not images: {entry['outside']:.0%} of the values of the network's samples ({steps} steps) lie "
                f"outside of [-1, 1] (beyond {BEYOND}). The network was trained too little or has diverged: however "
                f"high, its r with a theory says nothing."
            )


def _worse_than_nothing(summary: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for machine, by_steps in summary.get("machines", {}).items():
        for steps, entry in by_steps.items():
            r, r2_score = (entry.get(measure, {}).get("median", 0.0) for measure in ("pearson_r", "r2_score"))
            if machine not in TRIVIAL and r >= HIGH and r2_score < 0:
                found.setdefault(steps, []).append(f"{display_name(machine)} (r {r:.2f}, R² {r2_score:.2f})")
    for steps, names in found.items():
        yield (
            f"Negative R²: against {steps} network steps, {', '.join(names)}: r is high, but the values of the pixels "
            f"are further off than the mean of the network's sample would be. Do not quote r without R²."
        )


def falling(losses: Sequence[float]) -> float | None:
    """The share by which a loss fell over the last fifth of its values, by medians that single values do not move;
    None for too few values."""
    if len(losses) < FEWEST_LOSSES:
        return None
    width = max(2, len(losses) // 10)
    before = float(np.median(losses[-2 * width : -width]))
    return 1 - float(np.median(losses[-width:])) / before if before > 0 else None


def _convergence(losses: Losses) -> Iterator[str]:
    known = {name: [value for _, value in losses[name]] for name in LOSSES if losses.get(name)}
    judged = {name: fell for name, values in known.items() if (fell := falling(values)) is not None}
    for name, fell in list(judged.items())[:1]:
        if fell > STILL_FALLING:
            yield (
                f"Not converged: {name} still fell by {100 * fell:.1f} % over the last fifth of training. The better a "
                f"network has converged, the better theory can predict it."
            )
    if known and not judged:
        counts = ", ".join(f"{len(values)} of {name}" for name, values in known.items())
        yield (
            f"Whether the network has converged cannot be judged from so few values ({counts}); it takes "
            f"{FEWEST_LOSSES} of one."
        )
