"""The streaming softmax average that every machine is: pure functions over tensors.

A machine's posterior mean is `Σ_c w_c value_c` with `w = softmax_c(-‖query - sqrt(alpha_bar) key_c‖² /
(2 (1 - alpha_bar)))`. The sum runs over blocks of candidates; a `Partial` carries what is left of the blocks
seen so far, and partials merge in any order.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar


class Partial(NamedTuple):
    """A softmax average over some of the candidates, for any arrangement of queries."""

    maximum: Float[Tensor, "*query"]
    """Largest log-weight; -inf where there was no candidate yet."""
    weight: Float[Tensor, "*query"]
    """`Σ exp(log_weight - maximum)`."""
    weighted: Float[Tensor, "*query value"]
    """`Σ exp(log_weight - maximum) value`."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """The precision of running sums: float64, except on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def empty_partial(queries: tuple[int, ...], values: int, device: torch.device) -> Partial:
    """The average over no candidates."""
    zeros = torch.zeros((*queries, values), dtype=sum_dtype(device), device=device)
    return Partial(zeros.new_full(queries, -math.inf), zeros.new_zeros(queries), zeros)


def _rescaled(partial: Partial, maximum: Tensor) -> Partial:
    """The same average, its sums relative to another maximum."""
    # Where there is no candidate at all, exp(-inf - -inf) would be NaN.
    scale = (partial.maximum - maximum.clamp(min=torch.finfo(maximum.dtype).min)).exp()
    return Partial(maximum, scale * partial.weight, scale[..., None] * partial.weighted)


def merge(a: Partial, b: Partial) -> Partial:
    """The average over the candidates of both."""
    maximum = torch.maximum(a.maximum, b.maximum)
    a, b = _rescaled(a, maximum), _rescaled(b, maximum)
    return Partial(maximum, a.weight + b.weight, a.weighted + b.weighted)


def merge_over(partial: Partial, group: dist.ProcessGroup) -> Partial:
    """The average over the candidates of all processes of a group, each of which calls this with its own."""
    maximum = partial.maximum.clone()
    dist.all_reduce(maximum, dist.ReduceOp.MAX, group=group)
    partial = _rescaled(partial, maximum)
    for tensor in (partial.weight, partial.weighted):
        dist.all_reduce(tensor, dist.ReduceOp.SUM, group=group)
    return partial


def block_partial(
    log_weight: Float[Tensor, "group query candidate"], value: Float[Tensor, "group candidate value"]
) -> Partial:
    """The average over one block of candidates. Log-weights may be more precise than values."""
    maximum = log_weight.amax(dim=2)
    weight = (log_weight - maximum[:, :, None]).to(value.dtype).exp_()  # (group, query, candidate)
    sums = sum_dtype(value.device)
    return Partial(maximum.to(sums), weight.sum(dim=2).to(sums), (weight @ value).to(sums))


def posterior_mean(partial: Partial) -> Float[Tensor, "*query value"]:
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
    block: int,
) -> Partial:
    """`partial` with these candidates added.

    Args:
        query, key: patches, in the working precision (see `working_dtype`).
        value: what each candidate contributes; its dtype is that of the result.
        coefficients: one pair per query.
        block: number of (group, query, candidate) triples whose log-weights are held at once.
    """
    groups, queries, _ = query.shape
    # Squared norms are one more dimension of the product, which spares a pass over all log-weights.
    key = torch.cat([key, key.square().sum(dim=2, keepdim=True)], dim=2).transpose(1, 2)
    query = torch.cat(
        [query * coefficients.signal[:, None], -coefficients.power[:, None].expand(groups, queries, 1)], dim=2
    )
    rows = max(1, block // (groups * key.shape[2]))
    parts = []
    for start in range(0, queries, rows):
        part = slice(start, start + rows)
        log_weight = query[:, part] @ key
        old = Partial(partial.maximum[:, part], partial.weight[:, part], partial.weighted[:, part])
        parts.append(merge(old, block_partial(log_weight, value)))
    return Partial(
        torch.cat([part.maximum for part in parts], dim=1),
        torch.cat([part.weight for part in parts], dim=1),
        torch.cat([part.weighted for part in parts], dim=1),
    )


def attention_block(device: torch.device, budget: int) -> int:
    """How many log-weights `attend` should hold at once, its three arrays of them fitting into `budget` bytes.

    On a CPU 2 MiB of them, which stay in a core's cache; on other devices more, to keep them busy
    (`benchmarks/gpu.py`).
    """
    most = 2**19 if device.type == "cpu" else 2**28
    return max(1, min(most, budget // (3 * 8)))


def working_dtype(x_t: Tensor, alpha_bar: float, dim: int) -> torch.dtype:
    """The precision in which log-weights of `dim`-dimensional patches must be formed.

    The expansion of a squared distance loses `dim · 2⁻²⁴` or so, and the log-weight divides that by
    `1 - alpha_bar`. Where this would typically exceed 3e-5 nats (the worst is a few times that), float64 is
    needed; a device that has none (MPS) keeps float32, with that loss.
    """
    lost = 0.3 * dim * 2.0**-24 * alpha_bar / (1 - alpha_bar)
    if x_t.dtype == torch.float64 or (lost > 3e-5 and x_t.device.type != "mps"):
        return torch.float64
    return torch.float32


class _Precision:
    """The global precision of products, which is the highest as long as anyone needs it, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = "highest"

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("highest")
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                torch.set_float32_matmul_precision(self._before)


_PRECISION = _Precision()


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, no bfloat16, no autocast inside, whatever the global settings; what was set before is set again when the
    last thread has left."""
    with _PRECISION, torch.autocast(device.type, enabled=False):
        yield
