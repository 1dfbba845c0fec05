"""The CPU path of the patch machines: compiled loops over sliding windows, for float32.

For one displacement between a pixel and its candidate, the squared distances of all patches are box sums of one
image of squared differences, so that a pair of pixel and candidate costs about the same for every patch size.
Of a pixel outside the range of training pixels, only what sets candidates apart is summed, see `reflected`.
Sixty-four training images lie innermost, side by side in the vector registers. Box sums are formed from prefix
and suffix sums of blocks of P (van Herk's scheme), never by subtraction, so rounding stays relative to the
distance itself however small it is. Pairs that together cannot weigh 2⁻²³ of the sum are not exponentiated.
"""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elslightning.machines.candidates import patch_shifts
from elslightning.machines.kernels import Partial, merge
from elslightning.machines.lanes import LANES, PART
from elslightning.machines.loops import NO_CANDIDATE, add_block

FAR = 1e6
"""A scaled pixel so far from all others that a patch around it has no weight; it fills the lanes left over."""

LARGEST_COMPILED = 1000.0
"""The greatest number in a noisy image that the loops take; what a network returns at the beginning of its training, at
small alpha_bar, may be hundreds. The rounding of what they form (see `reflected`) grows with it."""
FAINTEST_COMPILED = 1e-12
"""The least alpha_bar that they take: below it, what fills the lanes left over would no longer be far."""


class Axis(NamedTuple):
    """The displacements along one axis between a pixel and its candidates."""

    tables: np.ndarray
    """(displacement, 2, longest) int64: which positions of query and training image are compared; -1: beyond the
    border."""
    lengths: np.ndarray
    """(displacement,) int64: how long each table is."""
    firsts: np.ndarray
    """(displacement, radius) int64: how many positions at either end of a table are no outputs; at half the length
    or more there are none."""


def axis(length: int, radii: Sequence[int], *, pooled: bool, padding_mode: str) -> Axis:
    """All displacements along an axis of `length` pixels, as the loops take them; arguments as in `patch_shifts`."""
    tables = [shift.compared for shift in patch_shifts(length, radii, pooled=pooled, padding_mode=padding_mode)]
    # A table as long as the axis with the widest windows around it stands for all its positions, whatever the radius.
    whole = length + 2 * radii[-1]
    firsts = [[radii[-1]] * len(radii) if table.shape[1] == whole else list(radii) for table in tables]
    lengths = np.array([table.shape[1] for table in tables])
    padded = np.full((len(tables), 2, lengths.max()), -1)
    for row, table in zip(padded, tables, strict=True):
        row[:, : table.shape[1]] = table
    return Axis(padded, lengths, np.array(firsts))


def image_bytes(channels: int, height: int, width: int, sizes: int) -> int:
    """Memory that one more noisy image takes in `candidate_sums`: its sums, some copies of them, and itself."""
    return 8 * height * width * (6 * sizes * (channels + 2) + 2 * channels)


def workspace_bytes(channels: int, height: int, width: int, patch_sizes: Sequence[int]) -> int:
    """Memory that one thread takes in `candidate_sums`."""
    widest = patch_sizes[-1]
    compared = 2 * (height + widest) * (width + widest)
    running = len(patch_sizes) * (channels + 1) * height * width * PART
    return 4 * (LANES * (channels * height * width + compared + widest) + running)


def aligned(*shape: int) -> np.ndarray:
    """An array of float32 zeros that begins on a cache line."""
    count = math.prod(shape)
    room = np.zeros(count + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + count].reshape(shape)


def reflected(queries: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Queries as the loops take them: (batch, 2, channel, height, width), of every pixel q the numbers c and 2 q - c.

    A training pixel p, scaled by s = sqrt(alpha_bar), lies between -s and s; c is what lies there nearest to q. Of
    `(q - p)² = (c - p) (2 q - c - p) + (q - c)²` the last term is the same for all candidates, and cancels in the
    softmax; however large, it is never formed. The factors of the other one have the same sign, so that sums of it lose
    nothing.
    """
    limit = signal[:, None, None, None]
    near = queries.clip(-limit, limit)
    return np.stack([near, 2 * queries - near], axis=1)


def candidate_sums(
    x_t: Tensor,
    alpha_bar: Tensor,
    images: Tensor,
    rows: Axis,
    columns: Axis,
    patch_sizes: Sequence[int],
    threads: int,
) -> list[Partial]:
    """The softmax average over some training images, for every pixel (batch, height, width) of some noisy images.

    Args:
        x_t: (batch, channel, height, width) float32 on the CPU.
        alpha_bar: (batch,) float64 in (0, 1).
        images: (N, channel, height, width) float32 on the CPU, in [-1, 1].
        rows, columns: displacements to candidates, for these patch sizes.
        patch_sizes: odd, increasing.
        threads: how many to use; they share the queries first, then the images.

    Returns:
        One average for each patch size.
    """
    batch, channels, height, width = x_t.shape
    signal = alpha_bar.sqrt().float().numpy()
    queries = reflected(x_t.numpy(), signal)
    power = (1 / (2 * (1 - alpha_bar))).numpy()
    sharpness = (power / math.log(2)).astype(np.float32)
    candidates = len(images) * len(rows.lengths) * len(columns.lengths)
    cutoff = np.float32(math.log2(candidates) + 23)
    far = min(FAR / signal.min(), 1e13)  # its square and the sum of some hundred of them stay below NO_CANDIDATE
    radii = np.array([size // 2 for size in patch_sizes])
    bank = images.numpy()
    query_parts = np.array_split(np.arange(batch), min(batch, threads))
    starts = np.arange(0, len(bank), LANES)
    image_parts = np.array_split(starts, min(len(starts), -(-threads // len(query_parts))))

    def work(part: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        outputs = (len(part), len(radii))
        best = np.full((*outputs, 2, height, width), NO_CANDIDATE, np.float32)
        weight = np.zeros((*outputs, height, width))
        weighted = np.zeros((*outputs, channels, height, width))
        block = aligned(channels, height, width, LANES)
        longest = rows.tables.shape[2] * columns.tables.shape[2]
        squares, sums = aligned(longest, LANES), aligned(longest, LANES)
        suffixes = aligned(patch_sizes[-1], LANES)
        running = aligned(len(radii), channels + 1, height, width, PART)
        for start in blocks:
            members = bank[start : start + LANES]
            block[..., : len(members)] = members.transpose(1, 2, 3, 0)
            block[..., len(members) :] = far
            add_block(
                queries[part],
                signal[part],
                block,
                *rows,
                *columns,
                radii,
                sharpness[part],
                cutoff,
                best,
                weight,
                weighted,
                squares,
                sums,
                suffixes,
                running,
            )
        return best[:, :, 0], weight, weighted

    with ThreadPoolExecutor(threads) as pool:
        futures = [[pool.submit(work, part, blocks) for blocks in image_parts] for part in query_parts]
        found = [[future.result() for future in line] for line in futures]

    def joined(size: int) -> Partial:
        lines = []
        for part, line in zip(query_parts, found, strict=True):
            pieces = [
                Partial(
                    torch.from_numpy(best[:, size] * -power[part, None, None]),
                    torch.from_numpy(weight[:, size]),
                    torch.from_numpy(weighted[:, size]).permute(0, 2, 3, 1),
                )
                for best, weight, weighted in line
            ]
            lines.append(functools.reduce(merge, pieces))
        return Partial(*(torch.cat(tensors) for tensors in zip(*lines, strict=True)))

    return [joined(size) for size in range(len(radii))]
