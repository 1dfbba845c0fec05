"""The CPU path of the ranking of candidates: compiled loops, for float32.

As in `compiled.py`, sixty-four training images lie side by side in the vector registers, and candidates that together
cannot weigh 2⁻²³ of the sum are not exponentiated; what they add to the entropy is below 1e-5 nats. Windows are
summed anew at every pixel, first along columns, then along rows, where `compiled.py` shares sums between pixels: only
so do equal patches come out equally far to the last digit.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.candidates import AxisShift, Candidates
from elslightning.machines.chunks import Chunks
from elslightning.machines.compiled import aligned
from elslightning.machines.lanes import LANES
from elslightning.machines.ranking import Ranking, empty_ranking, merge, power_of
from elslightning.machines.ranking_loops import NO_CANDIDATE, rank_block

ABSENT = 1e20
"""What is added to the squared distances in lanes without an image: far beyond those of images, and below
NO_CANDIDATE."""


def _tables(shifts: Sequence[AxisShift]) -> tuple[np.ndarray, np.ndarray]:
    """The tables of an axis, (shift, 2, longest), and the length of each."""
    lengths = np.array([shift.compared.shape[1] for shift in shifts])
    tables = np.full((len(shifts), 2, lengths.max()), -1)
    for table, shift, length in zip(tables, shifts, lengths, strict=True):
        table[:, :length] = shift.compared
    return tables, lengths


def rank_compiled(
    x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, candidates: Candidates, top: int, threads: int
) -> Ranking:
    """As `ranking.rank`, of float32 on the CPU, by `threads` threads: they share the queries first, then the images."""
    channels, height, width = x_t.shape[1:]
    rows, columns = _tables(candidates.rows), _tables(candidates.columns)
    longest = rows[0].shape[2], columns[0].shape[2]
    workspace = 4 * LANES * (channels * height * width + longest[0] * (longest[1] + 1) + 2)
    queries, signal = x_t.numpy(), alpha_bar.sqrt().float().numpy()
    sharpness = (1 / (2 * math.log(2) * (1 - alpha_bar))).float().numpy()
    cutoff = np.float32(math.log2(len(chunks.members) * len(candidates.pairs)) + 23)
    query_parts = np.array_split(np.arange(len(x_t)), min(len(x_t), threads))
    power = power_of(alpha_bar, x_t.device)

    def work(part: np.ndarray, blocks: np.ndarray, bank: np.ndarray, numbers: np.ndarray) -> Ranking:
        pixels = (len(part), *candidates.outputs)
        kept = np.full((*pixels, top), NO_CANDIDATE, np.float32)
        place, image = np.full(kept.shape, -1), np.full(kept.shape, -1)
        sums = np.zeros((*pixels, 2))
        block, absent = aligned(channels, height, width, LANES), aligned(LANES)
        squares, boxes, distances = aligned(longest[0], LANES), aligned(math.prod(longest), LANES), aligned(LANES)
        for start in blocks:
            members = bank[start : start + LANES]
            block[..., : len(members)] = members.transpose(1, 2, 3, 0)
            absent[len(members) :] = ABSENT
            rank_block(
                queries[part],
                signal[part],
                block,
                numbers[start : start + LANES],
                len(members),
                absent,
                candidates.pairs,
                *rows,
                *columns,
                candidates.window,
                candidates.centre,
                sharpness[part],
                cutoff,
                kept,
                place,
                image,
                sums,
                squares,
                boxes,
                distances,
            )
        distance = np.where(image < 0, np.float32(math.inf), kept)
        found = (torch.from_numpy(array) for array in (distance, place, image, sums[..., 0], sums[..., 1]))
        return Ranking(*found)

    result = empty_ranking((len(x_t), *candidates.outputs), top, x_t)
    first = 0
    with ThreadPoolExecutor(threads) as pool:
        for images in chunks.of(torch.float32, 3 * 4 * x_t[0].numel(), threads * workspace):
            numbers = np.arange(first, first + len(images))
            first += len(images)
            starts = np.arange(0, len(images), LANES)
            image_parts = np.array_split(starts, min(len(starts), -(-threads // len(query_parts))))
            futures = [
                [pool.submit(work, part, blocks, images.numpy(), numbers) for blocks in image_parts]
                for part in query_parts
            ]
            lines = []
            for part, line in zip(query_parts, futures, strict=True):
                ranking = line[0].result()
                for future in line[1:]:
                    ranking = merge(ranking, future.result(), power[part])
                lines.append(ranking)
            found: list[Tensor] = [torch.cat(tensors) for tensors in zip(*lines, strict=True)]
            result = merge(result, Ranking(*found), power)
    return result
