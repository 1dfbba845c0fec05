"""What a reader should know before believing a run's numbers, in plain words."""

from collections.abc import Iterator, Sequence

import numpy as np

from elslightning.measurement.doubts import doubts
from elslightning.report.figures.style import percent
from elslightning.runs.provenance import other_data
from elslightning.runs.run import Run

STILL_FALLING = 0.02
"""A validation loss that fell by more than this share over the last fifth of training had not converged."""
FEWEST_LOSSES = 10
"""With fewer validations than this there is no telling where the loss was going."""


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences: its doubts, and whether its network had converged."""
    changed = other_data(run.record)
    known = [] if changed is None else [changed]
    return [*known, *doubts(run.result, run.reference_steps, run.theories), *_convergence(run)]


def falling(losses: Sequence[float]) -> float | None:
    """The share by which a loss fell over the last fifth of its values, by medians that single values do not move;
    None for too few values."""
    if len(losses) < FEWEST_LOSSES:
        return None
    width = max(2, len(losses) // 10)
    before = float(np.median(losses[-2 * width : -width]))
    return 1 - float(np.median(losses[-width:])) / before if before > 0 else None


def _convergence(run: Run) -> Iterator[str]:
    fell = falling([value for _, value in run.losses.get("val/loss", [])])
    if fell is not None and fell > STILL_FALLING:
        yield (
            f"Not converged: val/loss still fell by {percent(fell, 1)} over the last fifth of training. The better a "
            f"network has converged, the better theory can predict it."
        )
