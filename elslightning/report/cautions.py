"""What a reader should know before believing a run's numbers, in plain words."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import torch

from elslightning.calibration import capped
from elslightning.comparison import median_interval
from elslightning.errors import InputError
from elslightning.figures import display_name
from elslightning.run_files import Run

FEW_PAIRS = 30
"""Below this, the interval of a median rests on a handful of values around it."""
STILL_FALLING = 0.02
"""A validation loss that fell by more than this share over the last fifth of training had not converged."""
FEWEST_LOSSES = 10
"""With fewer validations than this there is no telling where the loss was going."""


def cautions(run: Run) -> list[str]:
    """All warnings about a run, each one or two sentences."""
    return [*_few_pairs(run), *_edges(run), *_convergence(run), *_overlaps(run)]


def _few_pairs(run: Run) -> Iterator[str]:
    pairs = run.summary.get("pairs")
    if pairs is not None and pairs < FEW_PAIRS:
        yield (
            f"Few pairs: {pairs}. Below {FEW_PAIRS} the intervals of the medians are rough; "
            f"comparison.num_pairs=100 is what the paper uses."
        )


def _edges(run: Run) -> Iterator[str]:
    """Patch sizes at an end of the list that was tried: beyond it might be better ones."""
    for machine, table in run.scales.items():
        tried = sorted({row["patch_size"] for row in run.calibration if row["machine"] == machine})
        cap = run.setting("calibration.max_patch_size")
        if tried and isinstance(cap, int):
            try:
                tried = list(capped(tried, cap))
            except InputError:
                continue
        sizes = table.patch_size.tolist()
        if len(tried) < 2 or not set(sizes) <= set(tried):
            continue
        for edge, kind, beyond in ((tried[-1], "greatest", "a greater one"), (tried[0], "smallest", "a smaller one")):
            count = sizes.count(edge)
            if count and not (kind == "smallest" and edge == 1):
                yield (
                    f"Scale at the edge: {display_name(machine)} takes the {kind} patch size tried, {edge}, at {count} "
                    f"of {len(sizes)} noise levels. Perhaps {beyond} would agree better (calibration.patch_sizes)."
                )


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
            f"Not converged: val/loss still fell by {fell:.1%} over the last fifth of training. The better a network "
            f"has converged, the better theory can predict it."
        )


def _overlaps(run: Run) -> Iterator[str]:
    """Machines whose intervals overlap, and what the pairs themselves say, for they share their noises."""
    steps = run.reference_steps
    if steps is None:
        return
    for a, b in combinations(run.theories, 2):
        first, second = (run.summary["machines"][name][str(steps)]["pearson_r"] for name in (a, b))
        if first["low"] > second["high"] or second["low"] > first["high"]:
            continue
        difference = run.values(a, steps) - run.values(b, steps)
        median, low, high = median_interval(torch.from_numpy(difference))
        names = f"{display_name(a)} and {display_name(b)}"
        ahead = display_name(a if median > 0 else b)
        verdict = (
            f"Pair by pair {ahead} is ahead nevertheless"
            if low > 0 or high < 0
            else "Pair by pair they cannot be told apart either"
        )
        yield (
            f"Intervals overlap: {names}, against {steps} network steps. {verdict}: the median difference of r is "
            f"{median:+.3f} ({low:+.3f} … {high:+.3f})."
        )
