"""The CPU path of the patch machines: compiled loops over sliding windows, for float32.

For one displacement between a pixel and its candidate, the squared distances of all patches are box sums of one
image of squared differences, so that a pair of pixel and candidate costs about the same for every patch size.
Sixty-four training images lie innermost, side by side in the vector registers. Box sums are formed from prefix
and suffix sums of blocks of P (van Herk's scheme), never by subtraction, so rounding stays relative to the
distance itself however small it is. Pairs that together cannot weigh 2⁻²³ of the sum are not exponentiated.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

LANES = 64
"""Training images side by side."""

# A candidate that no lane of a full block needs: so far away that its weight is 0, but finite when squared.
_FAR = np.float32(1e6)
_NO_CANDIDATE = np.float32(1e30)

# 2^x on [-1/2, 1/2], to float32's rounding.
_C = [
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(lambda x: 2.0**x, 6, domain=[-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef
]
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = _C

_FASTMATH = {"nnan", "ninf", "nsz", "contract", "reassoc", "arcp"}


@intrinsic
def _as_float32(context: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.float32(numba.int32), build


@numba.njit(fastmath=_FASTMATH, inline="always")
def _exp2(x: Any) -> Any:
    """2^x for float32 x <= 0; what would be subnormal comes out as about 1e-38."""
    x = max(x, np.float32(-126.0))
    whole = np.int32(x - np.float32(0.5))
    part = x - np.float32(whole)
    power = _C5 + part * _C6
    power = _C4 + part * power
    power = _C3 + part * power
    power = _C2 + part * power
    power = _C1 + part * power
    power = _C0 + part * power
    return power * _as_float32(np.int32((whole + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]


@numba.njit(fastmath=_FASTMATH, nogil=True, error_model="numpy", cache=True)
def _add_displacement(
    query: Any,
    images: Any,
    query_rows: Any,
    image_rows: Any,
    query_columns: Any,
    image_columns: Any,
    radius: int,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
    blocks: Any,
    prefix: Any,
    sums: Any,
    row_blocks: Any,
    row_prefix: Any,
    distance: Any,
) -> None:
    """Adds the candidates at one displacement to the running softmax of every pixel that may use them.

    Rows and columns come as tables: position a of `query_rows` and `image_rows` are compared with each other,
    or are both beyond the border where the table says -1; positions radius … len - radius - 1 are outputs.
    """
    channels = query.shape[0]
    size = 2 * radius + 1
    columns = len(query_columns)
    for a in range(len(query_rows)):
        slot = a % size
        if slot == 0:
            if a > 0:  # the block of rows before this one becomes its suffix sums
                for k in range(size - 2, 0, -1):
                    for c in range(columns):
                        for b in range(LANES):
                            blocks[k, c, b] += blocks[k + 1, c, b]
            for c in range(columns):
                for b in range(LANES):
                    prefix[c, b] = 0.0
        y, z = query_rows[a], image_rows[a]
        for c in range(columns):
            v, w = query_columns[c], image_columns[c]
            if y < 0 or v < 0:
                for b in range(LANES):
                    blocks[slot, c, b] = 0.0
            else:
                value = query[0, y, v]
                for b in range(LANES):
                    difference = value - images[0, z, w, b]
                    blocks[slot, c, b] = difference * difference
                for channel in range(1, channels):
                    value = query[channel, y, v]
                    for b in range(LANES):
                        difference = value - images[channel, z, w, b]
                        blocks[slot, c, b] += difference * difference
            for b in range(LANES):
                prefix[c, b] += blocks[slot, c, b]
        if a < 2 * radius:
            continue
        if slot + 1 < size:
            for c in range(columns):
                for b in range(LANES):
                    sums[c, b] = prefix[c, b] + blocks[slot + 1, c, b]
        else:
            for c in range(columns):
                for b in range(LANES):
                    sums[c, b] = prefix[c, b]
        i, p = query_rows[a - radius], image_rows[a - radius]
        for c in range(columns):
            spot = c % size
            if spot == 0:
                if c > 0:
                    for k in range(size - 2, 0, -1):
                        for b in range(LANES):
                            row_blocks[k, b] += row_blocks[k + 1, b]
                for b in range(LANES):
                    row_prefix[b] = 0.0
            for b in range(LANES):
                row_blocks[spot, b] = sums[c, b]
                row_prefix[b] += sums[c, b]
            if c < 2 * radius:
                continue
            nearest = _NO_CANDIDATE
            if spot + 1 < size:
                for b in range(LANES):
                    distance[b] = row_prefix[b] + row_blocks[spot + 1, b]
                    nearest = min(nearest, distance[b])
            else:
                for b in range(LANES):
                    distance[b] = row_prefix[b]
                    nearest = min(nearest, distance[b])
            j, q = query_columns[c - radius], image_columns[c - radius]
            least = best[i, j]
            if (nearest - least) * sharpness > cutoff:
                continue
            if nearest < least:
                scale = _exp2((nearest - least) * sharpness)
                weight[i, j] *= scale
                for channel in range(channels):
                    weighted[channel, i, j] *= scale
                best[i, j] = least = nearest
            total = np.float32(0.0)
            for b in range(LANES):
                distance[b] = _exp2((least - distance[b]) * sharpness)
                total += distance[b]
            weight[i, j] += total
            for channel in range(channels):
                part = np.float32(0.0)
                for b in range(LANES):
                    part += distance[b] * images[channel, p, q, b]
                weighted[channel, i, j] += part


@numba.njit(fastmath=_FASTMATH, nogil=True, error_model="numpy", cache=True)
def _add_block(
    queries: Any,
    images: Any,
    rows: Any,
    row_lengths: Any,
    columns: Any,
    column_lengths: Any,
    radius: int,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
) -> None:
    """Adds a block of training images (channel, height, width, LANES) for every query and displacement."""
    size = 2 * radius + 1
    longest = columns.shape[2]
    blocks = np.empty((size, longest, LANES), np.float32)
    prefix = np.empty((longest, LANES), np.float32)
    sums = np.empty((longest, LANES), np.float32)
    row_blocks = np.empty((size, LANES), np.float32)
    row_prefix = np.empty(LANES, np.float32)
    distance = np.empty(LANES, np.float32)
    for n in range(len(queries)):
        for k in range(len(rows)):
            for m in range(len(columns)):
                _add_displacement(
                    queries[n],
                    images,
                    rows[k, 0, : row_lengths[k]],
                    rows[k, 1, : row_lengths[k]],
                    columns[m, 0, : column_lengths[m]],
                    columns[m, 1, : column_lengths[m]],
                    radius,
                    sharpness[n],
                    cutoff,
                    best[n],
                    weight[n],
                    weighted[n],
                    blocks,
                    prefix,
                    sums,
                    row_blocks,
                    row_prefix,
                    distance,
                )


class Axis(NamedTuple):
    """The displacements along one axis between a pixel and its candidates.

    For each: which positions of query and training image are compared (-1: beyond the border), the first and
    last `radius` of them being no outputs.
    """

    tables: np.ndarray
    """(displacement, 2, longest) int64."""
    lengths: np.ndarray
    """(displacement,) int64."""


def axis(length: int, radius: int, *, pooled: bool, padding_mode: str) -> Axis:
    """All displacements along an axis of `length` pixels.

    Args:
        length: pixels.
        radius: of the patch.
        pooled: whether a pixel's candidates lie along the axis (all around it if circular, otherwise along its
            interior for interior pixels), or only at its own position.
        padding_mode: "zeros" or "circular".
    """
    around = np.arange(-radius, length + radius)
    inside = np.where((around >= 0) & (around < length), around, -1)
    if padding_mode == "circular":
        tables = [np.stack([around % length, (around + shift) % length]) for shift in range(length if pooled else 1)]
    else:
        tables = [np.stack([inside, inside])]
        reach = max(0, length - 2 * radius - 1) if pooled else 0
        for shift in [s for s in range(-reach, reach + 1) if s != 0]:
            compared = np.arange(max(0, -shift), min(length, length - shift))
            tables.append(np.stack([compared, compared + shift]))
    lengths = np.array([table.shape[1] for table in tables])
    padded = np.full((len(tables), 2, lengths.max()), -1)
    for row, table in zip(padded, tables, strict=True):
        row[:, : table.shape[1]] = table
    return Axis(padded, lengths)


class Sums(NamedTuple):
    """A running softmax average for every query and pixel."""

    maximum: Tensor
    """(batch, height, width) largest log-weight, float64."""
    weight: Tensor
    """(batch, height, width) `Σ exp(log_weight - maximum)`, float64."""
    weighted: Tensor
    """(batch, channel, height, width) `Σ exp(log_weight - maximum) value`, float64."""


def candidate_sums(
    x_t: Tensor, alpha_bar: Tensor, images: Tensor, rows: Axis, columns: Axis, patch_size: int, threads: int
) -> Sums:
    """The softmax sums of some training images, for a batch of noisy images.

    Args:
        x_t: (batch, channel, height, width) float32 on the CPU.
        alpha_bar: (batch,) float64 in (0, 1).
        images: (N, channel, height, width) float32 on the CPU, in [-1, 1].
        rows, columns: displacements to candidates, for this patch size.
        patch_size: odd.
        threads: how many to use; they share the queries first, then the images.
    """
    batch, channels, height, width = x_t.shape
    queries = (x_t / alpha_bar.sqrt().float()[:, None, None, None]).numpy()
    power = (alpha_bar / (2 * (1 - alpha_bar))).numpy()
    sharpness = (power / math.log(2)).astype(np.float32)
    candidates = len(images) * len(rows.lengths) * len(columns.lengths)
    cutoff = np.float32(math.log2(candidates) + 23)
    bank = images.numpy()
    query_parts = np.array_split(np.arange(batch), min(batch, threads))
    starts = np.arange(0, len(bank), LANES)
    image_parts = np.array_split(starts, min(len(starts), -(-threads // len(query_parts))))

    def work(part: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        best = np.full((len(part), height, width), _NO_CANDIDATE, np.float32)
        weight = np.zeros((len(part), height, width))
        weighted = np.zeros((len(part), channels, height, width))
        block = np.empty((channels, height, width, LANES), np.float32)
        for start in blocks:
            members = bank[start : start + LANES]
            block[..., : len(members)] = members.transpose(1, 2, 3, 0)
            block[..., len(members) :] = _FAR
            _add_block(
                queries[part],
                block,
                rows.tables,
                rows.lengths,
                columns.tables,
                columns.lengths,
                patch_size // 2,
                sharpness[part],
                cutoff,
                best,
                weight,
                weighted,
            )
        return best, weight, weighted

    with ThreadPoolExecutor(threads) as pool:
        futures = [[pool.submit(work, part, blocks) for blocks in image_parts] for part in query_parts]
        found = [[future.result() for future in line] for line in futures]
    scale = -power[:, None, None]
    joined = [
        functools.reduce(merge_sums, [Sums(*(torch.from_numpy(array) for array in piece)) for piece in line])
        for line in [
            [(best * scale[part], weight, weighted) for best, weight, weighted in line]
            for part, line in zip(query_parts, found, strict=True)
        ]
    ]
    return Sums(*(torch.cat(tensors) for tensors in zip(*joined, strict=True)))


def merge_sums(a: Sums, b: Sums) -> Sums:
    """The sums over the training images of both."""
    maximum = torch.maximum(a.maximum, b.maximum)
    scale_a, scale_b = (a.maximum - maximum).exp(), (b.maximum - maximum).exp()
    return Sums(
        maximum,
        scale_a * a.weight + scale_b * b.weight,
        scale_a[:, None] * a.weighted + scale_b[:, None] * b.weighted,
    )
