"""What calibration tries of what is free in a machine, and what it takes of that."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from elslightning.machines.parameters import PATCH_SIZE
from elslightning.system.errors import InputError

Setting: TypeAlias = Mapping[str, float]
"""Values of what is free in a machine, by name, in the order in which they are varied."""


def _median(agreement: Tensor, sizes: Tensor) -> Tensor:
    return sizes[agreement.argmax(dim=0)].median()


def _mode(agreement: Tensor, sizes: Tensor) -> Tensor:
    values, counts = sizes[agreement.argmax(dim=0)].unique(return_counts=True)  # in increasing order
    return values[counts.argmax()]


def _mean(agreement: Tensor, sizes: Tensor) -> Tensor:
    return sizes[agreement.double().mean(dim=1).argmax()]


STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"median": _median, "mode": _mode, "mean": _mean}
"""The size of a step, from the agreement (size, sample) and the sizes (size,) in increasing order.

`median` and `mode` look at the best size of every sample: the lower median, and the most frequent one. `mean` takes
the size of the best agreement averaged over samples. Ties go to the smaller size.
"""


def sizes_only(patch_sizes: Sequence[int]) -> tuple[Setting, ...]:
    """Patch sizes as settings.

    >>> sizes_only([3, 5])
    ({'patch_size': 3}, {'patch_size': 5})
    """
    return tuple({PATCH_SIZE: size} for size in patch_sizes)


def grid(candidates: Mapping[str, Sequence[float]]) -> list[Setting]:
    """All settings of some candidates by parameter, the first parameter varying slowest.

    >>> grid({"patch_size": [3, 5], "softness": [1.0, 2.0]})[1]
    {'patch_size': 3, 'softness': 2.0}
    """
    return [dict(zip(candidates, values, strict=True)) for values in itertools.product(*candidates.values())]


def settings_to_check(candidates: Mapping[str, Sequence[float]]) -> list[Setting]:
    """Settings in which every candidate is found once: a machine that takes these takes all combinations."""
    longest = max(map(len, candidates.values()))
    return [{name: values[min(n, len(values) - 1)] for name, values in candidates.items()} for n in range(longest)]


def chosen(agreement: Float[Tensor, "settings samples"], settings: Sequence[Setting], statistic: str) -> int:
    """The place of the setting that a statistic takes.

    Where one parameter is free the statistic is that of its values, see `STATISTICS`. Values of several belong
    together, and have no median of their own: there "median" and "mean" take the setting of the greatest median or mean
    agreement, and "mode" the one that is best for most samples. Ties go to the first.
    """
    if len(settings[0]) == 1:
        values = torch.tensor([next(iter(setting.values())) for setting in settings], dtype=torch.float64)
        return int((values == STATISTICS[statistic](agreement, values)).nonzero()[0, 0])
    if statistic == "mode":
        return int(agreement.argmax(dim=0).bincount(minlength=len(settings)).argmax())
    scores = agreement.double()
    return int((scores.mean(dim=1) if statistic == "mean" else scores.quantile(0.5, dim=1)).argmax())


def candidates_of(
    patch_sizes: Sequence[int] | None, further: Mapping[str, Sequence[float]], cap: int | None
) -> dict[str, list[float]]:
    """What to try by parameter, the patch sizes first, if there are any, and not above the cap.

    Raises:
        InputError: for nothing to try, patch sizes as in `capped`, and values that are not increasing.
    """
    sizes: dict[str, list[float]] = {} if patch_sizes is None else {PATCH_SIZE: [*capped(patch_sizes, cap)]}
    for name, values in further.items():
        if not values or list(values) != sorted(set(values)):
            raise InputError(f"calibration.{name} must be increasing, not {list(values)}")
    if not sizes and not further:
        raise InputError("calibration needs patch sizes, or values of another parameter")
    return {**sizes, **{name: list(values) for name, values in further.items()}}


def capped(patch_sizes: Sequence[int], cap: int | None) -> list[int]:
    """The patch sizes that are not above `cap`; all of them if it is None.

    Raises:
        InputError: for sizes that are missing, not increasing, or all above the cap.

    >>> capped([3, 5, 7], 6)
    [3, 5]
    """
    sizes = list(patch_sizes)
    if not sizes or sizes != sorted(set(sizes)):
        raise InputError(f"calibration.patch_sizes must be increasing, not {sizes}")
    kept = [size for size in sizes if cap is None or size <= cap]
    if not kept:
        raise InputError(f"calibration.max_patch_size={cap} leaves none of calibration.patch_sizes={sizes}")
    return kept
