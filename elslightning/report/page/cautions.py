"""What a reader should know before believing a run's numbers, in plain words."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from elslightning.measurement.calibration import capped
from elslightning.measurement.doubts import at_the_edge, overlapping, too_few
from elslightning.report.figures.style import percent
from elslightning.runs.provenance import other_data
from elslightning.runs.run import Run
from elslightning.system.errors import InputError

STILL_FALLING = 0.02
"""A validation loss that fell by more than this share over the last fifth of training had not converged."""
FEWEST_LOSSES = 10
"""With fewer validations than this there is no telling where the loss was going."""


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences: its doubts, and whether its network had converged."""
    pairs, steps = run.summary.get("pairs"), run.reference_steps
    values = {} if steps is None else {name: torch.from_numpy(run.values(name, steps)) for name in run.theories}
    changed = other_data(run.record)
    return [
        *(() if changed is None else (changed,)),
        *(() if pairs is None else too_few(pairs)),
        *_edges(run),
        *_convergence(run),
        *(() if steps is None else overlapping(values, steps)),
    ]


def _edges(run: Run) -> Iterator[str]:
    for machine, table in run.scales.items():
        tried = list(run.calibrations[machine].patch_sizes) if machine in run.calibrations else []
        cap = run.setting("calibration.max_patch_size")
        if tried and isinstance(cap, int):
            try:
                tried = list(capped(tried, cap))
            except InputError:
                continue
        sizes = table.patch_size.tolist()
        if set(sizes) <= set(tried):
            yield from at_the_edge(machine, sizes, tried)


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
