"""How much of a run is explored: which pairs and steps, within bounds of file size and time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elslightning.diffusion.denoiser import Denoiser
from elslightning.runs.experiment import Experiment

TOP = 5
"""Sources named for every pixel of the sample; at the steps before, one."""
MAP_BYTES = 1_600_000
"""Uncompressed bytes of what is stored per pair: with the training images, below 5 MB as text even where nothing can be
compressed."""
MOST_STEPS = 20
FEWEST_PAIRS = 3


@dataclass(frozen=True)
class Plan:
    """How much of a run is explored.

    Attributes:
        pairs: how many.
        shown: positions of the steps shown, the last among them.
        attributed: positions among these of the steps whose sources are found, the last among them.
        shared: whether the machine is also asked at the network's states.
    """

    pairs: int
    shown: list[int]
    attributed: list[int]
    shared: bool


def middle(count: int) -> int:
    """The position of the median among `count` values in order; of the middle two, the first."""
    return (count - 1) // 2


def ranks(total: int, count: int) -> list[int]:
    """`count` positions among `total` pairs in order: the first, the median, the last, and evenly spread between.

    >>> ranks(101, 5), ranks(3, 9), ranks(10, 1)
    ([0, 25, 50, 75, 100], [0, 1, 2], [4])
    """
    if count >= total:
        return list(range(total))
    if count < 3:
        return sorted([middle(total), 0][:count])
    before = (count + 1) // 2
    first = np.linspace(0, middle(total), before).round()
    second = np.linspace(middle(total), total - 1, count - before + 1).round()
    return sorted({int(position) for position in (*first, *second)})


def plan(total: int, count: int, steps: int, shape: Sequence[int], candidates: int, work: float) -> Plan:
    """What can be explored within bounds of file size and time, the same on every machine.

    Args:
        total: number of pairs of the run.
        count: number of pairs wanted.
        steps: of the machine's process.
        shape: (channel, height, width) of an image.
        candidates: number of training patches or images that a pixel is made of, at most.
        work: candidates that may be weighed in all, over channels, pixels, pairs and steps: for the machine's process
            and the sources at its end, then at the network's states, then for the sources at other steps. For one pair
            the first is done whatever it takes.
    """
    channels, height, width = shape
    area = height * width
    each = channels * area * candidates  # for one pair, once
    shown = spread(steps, MOST_STEPS)
    pairs = min(count, total, max(1, int(work / (each * (steps + 1)))))
    spare = work / (each * pairs) - (steps + 1)
    shared = spare >= steps
    known = 1 + max(0, min(len(shown) - 1, int(spare - steps * shared)))

    def size() -> int:
        return pairs * area * (3 * channels * len(shown) + 7 * known + 6 * TOP)

    while size() > MAP_BYTES:
        if known > 4:
            known -= 1
        elif pairs > FEWEST_PAIRS:
            pairs -= 1
        elif len(shown) > known:
            shown = spread(steps, len(shown) - 1)
        elif known > 1:
            known -= 1
        else:
            break
    return Plan(pairs, shown, [shown[position] for position in spread(len(shown), known)], shared)


def spread(total: int, count: int) -> list[int]:
    """At most `count` positions among `total`, evenly, the last among them."""
    if count >= total:
        return list(range(total))
    return sorted({int(position) for position in np.linspace(total - 1, 0, count, endpoint=count > 1).round()})


def candidate_count(experiment: Experiment, machine: Denoiser) -> int:
    """How many candidates a pixel has, at most."""
    count = len(experiment.bank)
    if machine.conditional and experiment.bank_labels is not None:
        count = int(experiment.bank_labels.bincount().max())
    return count * (math.prod(experiment.bank.shape[2:]) if getattr(machine, "pooled", False) else 1)
