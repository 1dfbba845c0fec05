"""The CPU path of the soft patch machines: compiled loops over sliding Gaussian windows, for float32.

As in `elslightning.machines.compiled`, for one displacement between a pixel and its candidate the distances of all
patches are sums of one image of squared differences over windows; a Gaussian window is two filters of P taps, one along
each axis. Where locations respond with more than their centre, a second pass knows the posterior of every location: it
forms the weights anew, blurs them with the response, which are two filters again, and multiplies training pixels.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elslightning.machines.compiled import FAR, Axis, aligned, axis, reflected
from elslightning.machines.kernels import Partial, merge
from elslightning.machines.lanes import LANES, PART
from elslightning.machines.loops import NO_CANDIDATE
from elslightning.machines.soft_loops import add_soft_block


class Window(NamedTuple):
    """A window of distances, and what its locations respond with."""

    radius: int
    taps: tuple[float, ...]
    """Weights of the window along an axis, by the distance from its centre."""
    valued: bool
    """Whether the locations' own pixels are wanted."""
    responses: tuple[tuple[float, ...], ...]
    """Weights of the responses that are wanted besides, as `taps`."""


def soft_image_bytes(channels: int, height: int, width: int, windows: int, responses: int) -> int:
    """Memory that one more noisy image takes: its sums, some copies of them, and itself."""
    return 8 * height * width * (6 * windows * (channels + 3) + 3 * responses * channels + 2 * channels)


def soft_workspace_bytes(channels: int, height: int, width: int, windows: Sequence[Window]) -> int:
    """Memory that one thread takes."""
    widest = max(window.radius for window in windows)
    responses = sum(len(window.responses) for window in windows)
    compared = 4 * (height + 2 * widest) * (width + 2 * widest) + width + 2 * widest
    running = (len(windows) * (channels + 1) + responses * channels) * height * width * PART
    return 4 * (LANES * (channels * height * width + compared) + running)


class SoftSums:
    """The softmax averages and the responses of some noisy images, chunk of training images by chunk.

    Args:
        x_t: (batch, channel, height, width) float32 on the CPU.
        alpha_bar: (batch,) float64 in (0, 1).
        windows: distinct.
        pooled, padding_mode: where candidates lie: see `compiled.axis`.
        threads: how many to use; they share the queries first, then the images.
    """

    def __init__(
        self,
        x_t: Tensor,
        alpha_bar: Tensor,
        windows: Sequence[Window],
        *,
        pooled: bool,
        padding_mode: str,
        threads: int,
    ) -> None:
        self.queries = x_t.numpy()
        self.windows = windows
        self.threads = threads
        self.signal = alpha_bar.sqrt().float().numpy()
        self.reflected = reflected(self.queries, self.signal)
        self.power = (1 / (2 * (1 - alpha_bar))).numpy()
        self.sharpness = (self.power / math.log(2)).astype(np.float32)
        order = sorted({window.radius for window in windows})
        places = [order.index(window.radius) for window in windows]
        self.rows, self.columns = (
            self._of(axis(length, order, pooled=pooled, padding_mode=padding_mode), places) for length in x_t.shape[2:]
        )
        self.radii = np.array([window.radius for window in windows])
        self.taps = _padded([window.taps for window in windows])
        self.valued = np.array([window.valued for window in windows])

    @staticmethod
    def _of(axis: Axis, places: Sequence[int]) -> Axis:
        """The axis with one column of `firsts` for each window instead of for each radius."""
        return axis._replace(firsts=np.ascontiguousarray(axis.firsts[:, places]))

    def averages(self, images: Tensor) -> list[Partial]:
        """The softmax average over some training images (N, channel, height, width), for every pixel (batch, height,
        width): one for each window, of zeros where its own pixels are not wanted."""
        height, width = self.queries.shape[2:]

        def results(part: np.ndarray) -> tuple[Any, ...]:
            outputs = (len(part), len(self.windows))
            best = np.full((*outputs, 2, height, width), NO_CANDIDATE, np.float32)
            weight = np.zeros((*outputs, height, width))
            weighted = np.zeros((*outputs, self.queries.shape[1], height, width))
            share = np.zeros((1, 1, 1, 1), np.float32)
            return best, weight, weighted, share, np.zeros((len(part), 0, self.queries.shape[1], height, width))

        found = self._over(images, results, [])

        def joined(s: int) -> Partial:
            lines = []
            for part, line in found:
                pieces = [
                    Partial(
                        torch.from_numpy(best[:, s, 0] * -self.power[part, None, None]),
                        torch.from_numpy(weight[:, s]),
                        torch.from_numpy(weighted[:, s]).permute(0, 2, 3, 1),
                    )
                    for best, weight, weighted, _, _ in line
                ]
                lines.append(functools.reduce(merge, pieces))
            return Partial(*(torch.cat(tensors) for tensors in zip(*lines, strict=True)))

        return [joined(s) for s in range(len(self.windows))]

    def responses(self, averages: Sequence[Partial], images: Tensor) -> Tensor:
        """What some training images add to the responses: (batch, response, channel, height, width) float64.

        Args:
            averages: over all training images, one for each window.
            images: (N, channel, height, width), some of them.
        """
        nearest = (
            torch.stack([partial.maximum for partial in averages], dim=1).numpy() / -self.power[:, None, None, None]
        )
        reach = self._cutoff(len(images)) / self.sharpness[:, None, None, None]
        best = np.stack([nearest.astype(np.float32), (nearest + reach).astype(np.float32)], axis=2)
        share = (1 / torch.stack([partial.weight for partial in averages], dim=1)).float().numpy()
        wanted = [(s, taps) for s, window in enumerate(self.windows) for taps in window.responses]
        channels, height, width = self.queries.shape[1:]

        def results(part: np.ndarray) -> tuple[Any, ...]:
            none = np.zeros((len(part), 1, height, width))
            painted = np.zeros((len(part), len(wanted), channels, height, width))
            return best[part], none, np.zeros((len(part), 1, channels, height, width)), share[part], painted

        found = self._over(images, results, wanted)
        return torch.from_numpy(np.concatenate([sum(painted for *_, painted in line) for _, line in found]))

    def _cutoff(self, images: int) -> np.float32:
        candidates = images * len(self.rows.lengths) * len(self.columns.lengths)
        return np.float32(math.log2(candidates) + 23)

    def _over(
        self, images: Tensor, results: Callable[[np.ndarray], tuple[Any, ...]], wanted: Sequence[tuple[int, Any]]
    ) -> list[tuple[np.ndarray, list[tuple[Any, ...]]]]:
        """Runs the loops over some training images; for each part of the queries, its results from each thread."""
        bank = images.numpy()
        parts = np.array_split(np.arange(len(self.queries)), min(len(self.queries), self.threads))
        starts = np.arange(0, len(bank), LANES)
        image_parts = np.array_split(starts, min(len(starts), -(-self.threads // len(parts))))
        cutoff = self._cutoff(len(bank))
        far = min(FAR / self.signal.min(), 1e13)  # its square and the sum of some hundred of them stay finite
        of = np.array([s for s, _ in wanted], np.int64)
        responses = _padded([taps for _, taps in wanted])

        def work(part: np.ndarray, blocks: np.ndarray) -> tuple[Any, ...]:
            found = results(part)
            workspace = list(self._workspace(len(wanted)))
            block = aligned(*self.queries.shape[1:], LANES)
            for start in blocks:
                members = bank[start : start + LANES]
                block[..., : len(members)] = members.transpose(1, 2, 3, 0)
                block[..., len(members) :] = far
                add_soft_block(
                    self.reflected[part],
                    self.signal[part],
                    block,
                    *self.rows,
                    *self.columns,
                    self.radii,
                    self.taps,
                    self.valued,
                    of,
                    responses,
                    self.sharpness[part],
                    cutoff,
                    *found,
                    *workspace,
                )
            return found

        with ThreadPoolExecutor(self.threads) as pool:
            futures = [(part, [pool.submit(work, part, blocks) for blocks in image_parts]) for part in parts]
            return [(part, [future.result() for future in line]) for part, line in futures]

    def _workspace(self, responses: int) -> Iterator[np.ndarray]:
        """The arrays that one thread works in, in the order in which `add_soft_block` takes them."""
        channels, height, width = self.queries.shape[1:]
        tall, wide = self.rows.tables.shape[2], self.columns.tables.shape[2]
        yield aligned(tall * wide, LANES)  # squares
        yield aligned(tall * wide, LANES)  # sums
        yield aligned(wide, LANES)  # distances
        yield aligned(len(self.windows), channels + 1, height, width, PART)  # running
        second = responses > 0
        yield aligned(tall * wide if second else 1, LANES)  # weights
        yield aligned(tall * wide if second else 1, LANES)  # blurred
        yield np.zeros(tall, np.int64)  # low
        yield np.zeros(tall, np.int64)  # high
        yield aligned(responses, channels, height, width, PART)  # painting


def _padded(taps: Sequence[Sequence[float]]) -> np.ndarray:
    """Weights of several windows (window, longest), zero beyond the end of each."""
    longest = max((len(one) for one in taps), default=1)
    return np.array([[*one, *[0.0] * (longest - len(one))] for one in taps], np.float32).reshape(len(taps), longest)
