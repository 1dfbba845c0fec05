"""What a reader should know before believing the numbers of a measurement, in plain words."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from torch import Tensor

from elslightning.machines.registry import display_name
from elslightning.measurement.comparison import median_interval
from elslightning.measurement.result import Result

FEW_PAIRS = 30
"""Below this, the interval of a median rests on a handful of values around it."""


def doubts(result: Result, steps: int | None = None, theories: Sequence[str] | None = None) -> list[str]:
    """All that is doubtful about a result, each in one line: few pairs, scales at the edge of the list that was tried,
    and machines whose intervals overlap.

    Args:
        result: of a measurement.
        steps: the number of network steps to hold machines against; the first one if not given.
        theories: the machines to hold against each other; all if not given.
    """
    found = [
        line
        for machine, calibration in result.calibrations.items()
        for line in _at_the_edge(machine, calibration.scales.patch_size.tolist(), calibration.patch_sizes)
    ]
    if (comparison := result.comparison) is None:
        return found
    against = comparison.network_steps[0] if steps is None else steps
    named = comparison.theories if theories is None else theories
    values = {machine: comparison.values(machine, against) for machine in named}
    pairs = len({row["pair"] for row in comparison.rows})
    return [*_too_few(pairs), *found, *_overlapping(values, against)]


def _too_few(pairs: int) -> Iterator[str]:
    """Says so of fewer pairs than `FEW_PAIRS`."""
    if pairs < FEW_PAIRS:
        yield (
            f"Few pairs: {pairs}. Below {FEW_PAIRS} the intervals of the medians are rough; "
            f"comparison.num_pairs=100 is what the paper uses."
        )


def _at_the_edge(machine: str, sizes: Sequence[int], tried: Sequence[int]) -> Iterator[str]:
    """Names the patch sizes of a machine at an end of those that were tried: beyond it might be better ones.

    Args:
        machine: its name.
        sizes: the calibrated patch sizes, one per noise level.
        tried: those that were tried, in increasing order.
    """
    if len(tried) < 2:
        return
    for edge, kind, beyond in ((tried[-1], "greatest", "a greater one"), (tried[0], "smallest", "a smaller one")):
        count = sizes.count(edge)
        if count and edge != 1:  # there is nothing smaller
            yield (
                f"Scale at the edge: {display_name(machine)} takes the {kind} patch size tried, {edge}, at {count} "
                f"of {len(sizes)} noise levels. Perhaps {beyond} would agree better (calibration.patch_sizes)."
            )


def _overlapping(values: Mapping[str, Tensor], steps: int) -> Iterator[str]:
    """Names machines whose intervals overlap, and what the pairs themselves say, for they share their noises.

    Args:
        values: Pearson r of every pair by machine, (pairs,) each, in the order of the pairs.
        steps: of the network.
    """
    for a, b in combinations(values, 2):
        (_, low_a, high_a), (_, low_b, high_b) = median_interval(values[a]), median_interval(values[b])
        if low_a > high_b or low_b > high_a:
            continue
        median, low, high = median_interval(values[a] - values[b])
        names, ahead = f"{display_name(a)} and {display_name(b)}", display_name(a if median > 0 else b)
        apart = low > 0 or high < 0
        verdict = f"{ahead} is ahead nevertheless" if apart else "they cannot be told apart either"
        yield (
            f"Intervals overlap: {names}, against {steps} network steps. Pair by pair {verdict}: the median difference "
            f"of r is {median:+.3f} ({low:+.3f} … {high:+.3f})."
        )
