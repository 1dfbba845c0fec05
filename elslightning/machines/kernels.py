"""The streaming softmax average that every machine is: pure functions over tensors.

A machine's posterior mean is `Σ_c w_c value_c` with `w = softmax_c(-‖query - sqrt(alpha_bar) key_c‖² /
(2 (1 - alpha_bar)))`. The sum runs over blocks of candidates; a `Partial` carries what is left of the blocks
seen so far, and partials merge in any order.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from elslightning.shapes import AlphaBar

# Log-weights held at once: 2 MiB in float32, which stays in a core's cache.
_BLOCK = 2**19


class Partial(NamedTuple):
    """A softmax average over some of the candidates, for every group and query."""

    maximum: Float[Tensor, "group query"]
    """Largest log-weight; -inf where there was no candidate yet."""
    weight: Float[Tensor, "group query"]
    """`Σ exp(log_weight - maximum)`."""
    weighted: Float[Tensor, "group query value"]
    """`Σ exp(log_weight - maximum) value`."""


def empty_partial(groups: int, queries: int, values: int, like: Tensor) -> Partial:
    """The average over no candidates, with the dtype and device of `like`."""
    return Partial(
        maximum=like.new_full((groups, queries), -math.inf),
        weight=like.new_zeros((groups, queries)),
        weighted=like.new_zeros((groups, queries, values)),
    )


def merge(a: Partial, b: Partial) -> Partial:
    """The average over the candidates of both."""
    maximum = torch.maximum(a.maximum, b.maximum)
    # Where neither has a candidate, exp(-inf - -inf) would be NaN.
    finite = maximum.clamp(min=torch.finfo(maximum.dtype).min)
    scale_a, scale_b = (a.maximum - finite).exp(), (b.maximum - finite).exp()
    return Partial(
        maximum=maximum,
        weight=scale_a * a.weight + scale_b * b.weight,
        weighted=scale_a[..., None] * a.weighted + scale_b[..., None] * b.weighted,
    )


def block_partial(
    log_weight: Float[Tensor, "group query candidate"], value: Float[Tensor, "group candidate value"]
) -> Partial:
    """The average over one block of candidates. Log-weights may be more precise than values."""
    maximum = log_weight.amax(dim=2)
    weight = (log_weight - maximum[:, :, None]).to(value.dtype).exp_()  # (group, query, candidate)
    return Partial(maximum.to(value.dtype), weight.sum(dim=2), weight @ value)


def posterior_mean(partial: Partial) -> Float[Tensor, "group query value"]:
    """What the softmax average comes to, all candidates being in."""
    return partial.weighted / partial.weight[..., None]


class LogWeight(NamedTuple):
    """`log_weight = signal · (query · key) - power · ‖key‖²`, up to a constant per query.

    The term `‖query‖²` cancels in the softmax. For every query of a batch of images.
    """

    signal: Float[Tensor, " query"]
    """`sqrt(alpha_bar) / (1 - alpha_bar)`."""
    power: Float[Tensor, " query"]
    """`alpha_bar / (2 (1 - alpha_bar))`."""

    @classmethod
    def of(cls, alpha_bar: AlphaBar, queries_per_image: int, like: Tensor) -> "LogWeight":
        """For queries ordered (image, query within the image), with the dtype and device of `like`."""
        signal = alpha_bar.sqrt() / (1 - alpha_bar)
        power = alpha_bar / (2 * (1 - alpha_bar))
        return cls(
            signal.to(like.device, like.dtype).repeat_interleave(queries_per_image),
            power.to(like.device, like.dtype).repeat_interleave(queries_per_image),
        )


def attend(
    partial: Partial,
    query: Float[Tensor, "group query dim"],
    key: Float[Tensor, "group candidate dim"],
    value: Float[Tensor, "group candidate value"],
    coefficients: LogWeight,
) -> Partial:
    """`partial` with these candidates added.

    Args:
        query, key: patches, in the working precision (see `working_dtype`).
        value: what each candidate contributes; its dtype is that of the result.
        coefficients: one pair per query.
    """
    groups, queries, _ = query.shape
    power = key.square().sum(dim=2)  # (group, candidate)
    rows = max(1, _BLOCK // (groups * key.shape[1]))
    parts = []
    for start in range(0, queries, rows):
        part = slice(start, start + rows)
        log_weight = torch.baddbmm(
            power[:, None, :] * -coefficients.power[None, part, None],
            query[:, part] * coefficients.signal[None, part, None],
            key.transpose(1, 2),
        )
        old = Partial(partial.maximum[:, part], partial.weight[:, part], partial.weighted[:, part])
        parts.append(merge(old, block_partial(log_weight, value)))
    return Partial(
        torch.cat([part.maximum for part in parts], dim=1),
        torch.cat([part.weight for part in parts], dim=1),
        torch.cat([part.weighted for part in parts], dim=1),
    )


def working_dtype(x_t: Tensor, alpha_bar: float, dim: int) -> torch.dtype:
    """The precision in which log-weights of `dim`-dimensional patches must be formed.

    The expansion of a squared distance loses `dim · 2⁻²⁴` or so, and the log-weight divides that by
    `1 - alpha_bar`. Where this could exceed 3e-5 nats, float64 is needed; a device that has none (MPS) keeps
    float32, with that loss.
    """
    lost = 0.3 * dim * 2.0**-24 * alpha_bar / (1 - alpha_bar)
    if x_t.dtype == torch.float64 or (lost > 3e-5 and x_t.device.type != "mps"):
        return torch.float64
    return torch.float32


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, no bfloat16, no autocast inside, whatever the global settings."""
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(previous)
