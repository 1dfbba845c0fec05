"""What a reader should know before believing the numbers of a measurement, in plain words."""

from collections.abc import Iterator
from itertools import combinations

from elslightning.comparison import median_interval
from elslightning.figures import display_name
from elslightning.results import Result

FEW_PAIRS = 30
"""Below this, the interval of a median rests on a handful of values around it."""


def doubts(result: Result) -> list[str]:
    """All that is doubtful about a result, each in one line: few pairs, scales at the edge of the list that was tried,
    and, against the first number of network steps, machines whose intervals overlap."""
    return [*_few_pairs(result), *_edges(result), *_overlaps(result)]


def _few_pairs(result: Result) -> Iterator[str]:
    pairs = None if result.comparison is None else result.comparison.summary()["pairs"]
    if pairs is not None and pairs < FEW_PAIRS:
        yield (
            f"Few pairs: {pairs}. Below {FEW_PAIRS} the intervals of the medians are rough; "
            f"comparison.num_pairs=100 is what the paper uses."
        )


def _edges(result: Result) -> Iterator[str]:
    """Patch sizes at an end of the list that was tried: beyond it might be better ones."""
    for machine, calibration in result.calibrations.items():
        tried, sizes = calibration.patch_sizes, calibration.scales.patch_size.tolist()
        if len(tried) < 2:
            continue
        for edge, kind, beyond in ((tried[-1], "greatest", "a greater one"), (tried[0], "smallest", "a smaller one")):
            count = sizes.count(edge)
            if count and edge != 1:  # there is nothing smaller
                yield (
                    f"Scale at the edge: {display_name(machine)} takes the {kind} patch size tried, {edge}, at {count} "
                    f"of {len(sizes)} noise levels. Perhaps {beyond} would agree better (calibration.patch_sizes)."
                )


def _overlaps(result: Result) -> Iterator[str]:
    """Machines whose intervals overlap, and what the pairs themselves say, for they share their noises."""
    comparison = result.comparison
    if comparison is None:
        return
    steps, summary = next(iter(comparison.network)), comparison.summary()["machines"]
    for a, b in combinations(comparison.machines, 2):
        first, second = (summary[name][str(steps)]["pearson_r"] for name in (a, b))
        if first["low"] > second["high"] or second["low"] > first["high"]:
            continue
        median, low, high = median_interval(comparison.values(a, steps) - comparison.values(b, steps))
        names, ahead = f"{display_name(a)} and {display_name(b)}", display_name(a if median > 0 else b)
        apart = low > 0 or high < 0
        verdict = f"{ahead} is ahead nevertheless" if apart else "they cannot be told apart either"
        yield (
            f"Intervals overlap: {names}, against {steps} network steps. Pair by pair {verdict}: the median difference "
            f"of r is {median:+.3f} ({low:+.3f} … {high:+.3f})."
        )
