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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elslightning.machines.kernels import Partial, merge
from elslightning.machines.loops import LANES, NO_CANDIDATE, add_block


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


def image_bytes(channels: int, height: int, width: int) -> int:
    """Memory that one more noisy image takes in `candidate_sums`: its sums, some copies of them, and itself."""
    return 8 * height * width * (6 * (channels + 2) + 2 * channels)


def workspace_bytes(channels: int, height: int, width: int, patch_size: int) -> int:
    """Memory that one thread takes in `candidate_sums`."""
    compared = (height + patch_size) * (width + patch_size)
    return 4 * LANES * (channels * height * width + compared + patch_size)


def candidate_sums(
    x_t: Tensor, alpha_bar: Tensor, images: Tensor, rows: Axis, columns: Axis, patch_size: int, threads: int
) -> Partial:
    """The softmax average over some training images, for every pixel (batch, height, width) of some noisy images.

    Args:
        x_t: (batch, channel, height, width) float32 on the CPU.
        alpha_bar: (batch,) float64 in (0, 1).
        images: (N, channel, height, width) float32 on the CPU, in [-1, 1].
        rows, columns: displacements to candidates, for this patch size.
        patch_size: odd.
        threads: how many to use; they share the queries first, then the images.
    """
    batch, channels, height, width = x_t.shape
    queries = x_t.numpy()
    signal = alpha_bar.sqrt().float().numpy()
    power = (1 / (2 * (1 - alpha_bar))).numpy()
    sharpness = (power / math.log(2)).astype(np.float32)
    candidates = len(images) * len(rows.lengths) * len(columns.lengths)
    cutoff = np.float32(math.log2(candidates) + 23)
    bank = images.numpy()
    query_parts = np.array_split(np.arange(batch), min(batch, threads))
    starts = np.arange(0, len(bank), LANES)
    image_parts = np.array_split(starts, min(len(starts), -(-threads // len(query_parts))))

    def work(part: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        best = np.full((len(part), height, width), NO_CANDIDATE, np.float32)
        weight = np.zeros((len(part), height, width))
        weighted = np.zeros((len(part), channels, height, width))
        block = np.empty((channels, height, width, LANES), np.float32)
        for start in blocks:
            members = bank[start : start + LANES]
            block[..., : len(members)] = members.transpose(1, 2, 3, 0)
            block[..., len(members) :] = block[..., :1]
            mask = (np.arange(LANES) < len(members)).astype(np.float32)[None]
            add_block(
                queries[part],
                signal[part],
                block,
                mask,
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
    joined = []
    for part, line in zip(query_parts, found, strict=True):
        pieces = [
            Partial(
                torch.from_numpy(best * -power[part, None, None]),
                torch.from_numpy(weight),
                torch.from_numpy(weighted).permute(0, 2, 3, 1),
            )
            for best, weight, weighted in line
        ]
        joined.append(functools.reduce(merge, pieces))
    return Partial(*(torch.cat(tensors) for tensors in zip(*joined, strict=True)))
