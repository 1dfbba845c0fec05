"""What a reader should know before believing the numbers of a measurement, in plain words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from torch import Tensor

from elslightning.machines.parameters import PATCH_SIZE
from elslightning.machines.registry import TRIVIAL, display_name
from elslightning.measurement.agreement import MEASURES, median_interval
from elslightning.measurement.alarms import alarms
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.result import Result

FEW_PAIRS = 30
"""Below this, the interval of a median rests on a handful of values around it."""
MOST_DOUBTFUL = 0.01
"""A greater share of pixels with errors that cannot be trusted is said."""
ALIKE = 0.98
"""Replicas that agree less take more than a hundredth of r."""
ENDS = {
    PATCH_SIZE: (1,),
    "softness": (math.inf,),
    "response": (0.0,),
    "threshold": (0.0, 1.0),
    "smoothing": (0.0,),
}
"""Values of parameters beyond which there is nothing."""


def doubts(result: Result, steps: int | None = None, theories: Sequence[str] | None = None) -> list[str]:
    """All that is doubtful about a result, each in one line: first what turns its headline over, see `alarms`; then few
    pairs, scales at the edge of the list that was tried, and machines whose intervals overlap.

    Args:
        result: of a measurement.
        steps: the number of network steps to hold machines against; the first one if not given.
        theories: the machines to hold against each other; all if not given.
    """
    found = [line for machine, calibration in result.calibrations.items() for line in _edges(machine, calibration)]
    if (comparison := result.comparison) is None:
        return [*alarms({}, result.losses), *found]
    against = comparison.network_steps[0] if steps is None else steps
    named = comparison.theories if theories is None else theories
    values = {machine: comparison.values(machine, against) for machine in named}
    pairs = len({row["pair"] for row in comparison.rows})
    whole = all(measure in row for row in comparison.rows for measure in MEASURES)
    told = alarms(comparison.summary() if whole else {}, result.losses)
    return [*told, *_drawn(comparison, against), *_too_few(pairs), *found, *_overlapping(values, against)]


def _drawn(comparison: Comparison, steps: int) -> Iterator[str]:
    """Says so of machines that drew their candidates with an error that is felt, or that cannot be trusted."""
    for machine in comparison.replicas:
        entry = comparison.summary()["machines"][machine][str(steps)]
        share, r = entry["doubtful"] or 0.0, entry["replica_r"]["median"]
        if share > MOST_DOUBTFUL:
            yield (
                f"Errors that cannot be trusted: {display_name(machine)} draws its candidates, and at {share:.1%} of "
                f"the pixels that it evaluated the error is above what was asked, or rests on few draws. "
                f"machines.{machine}.accuracy=exact looks at all of them."
            )
        if r < ALIKE:
            yield (
                f"Draws that are felt: two samples of {display_name(machine)} with other draws agree with r = {r:.3f} "
                f"only. A smaller machines.{machine}.accuracy makes the error of the samples smaller."
            )


def _too_few(pairs: int) -> Iterator[str]:
    """Says so of fewer pairs than `FEW_PAIRS`."""
    if pairs < FEW_PAIRS:
        yield (
            f"Few pairs: {pairs}. Below {FEW_PAIRS} the intervals of the medians are rough; "
            f"comparison.num_pairs=100 is what the paper uses."
        )


def _edges(machine: str, calibration: Calibration) -> Iterator[str]:
    """The same for everything that is free in a machine, see `_at_the_edge`."""
    for name in [name for name in calibration.settings[0] if name in calibration.scales.columns]:
        tried = sorted({setting[name] for setting in calibration.settings})
        yield from _at_the_edge(machine, calibration.scales.columns[name].tolist(), tried, name)


def _at_the_edge(
    machine: str, values: Sequence[float], tried: Sequence[float], parameter: str = PATCH_SIZE
) -> Iterator[str]:
    """Names the values of a machine's free parameter at an end of those that were tried: beyond might be better ones.

    Args:
        machine: its name.
        values: the calibrated ones, one per noise level.
        tried: those that were tried, in increasing order.
        parameter: its name.
    """
    if len(tried) < 2:
        return
    title = "Scale" if parameter == PATCH_SIZE else parameter.capitalize()
    key, what = (f"{parameter}s", "patch size") if parameter == PATCH_SIZE else (parameter, parameter)
    for edge, kind, beyond in ((tried[-1], "greatest", "a greater one"), (tried[0], "smallest", "a smaller one")):
        count = values.count(edge)
        if count and edge not in ENDS.get(parameter, ()):
            yield (
                f"{title} at the edge: {display_name(machine)} takes the {kind} {what} tried, {edge:g}, at {count} "
                f"of {len(values)} noise levels. Perhaps {beyond} would agree better (calibration.{key})."
            )


def _overlapping(values: Mapping[str, Tensor], steps: int) -> Iterator[str]:
    """Names machines whose intervals overlap, and what the pairs themselves say, for they share their noises.

    Args:
        values: Pearson r of every pair by machine, (pairs,) each, in the order of the pairs.
        steps: of the network.
    """
    for a, b in combinations(values, 2):
        if {a, b} <= TRIVIAL:  # none of them is a theory
            continue
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
