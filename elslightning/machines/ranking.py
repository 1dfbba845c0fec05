"""The leading candidates of every pixel, and the entropy of all of them, streaming over the training images.

Distances are sums of squared differences, formed in the same order at every pixel: equal patches come out equally far
to the last digit, so that ties are ties however the training images are split.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.candidates import Candidates
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import sum_dtype


class Ranking(NamedTuple):
    """What is left of the candidates seen so far: the nearest of every pixel, and sums over all."""

    distance: Float[Tensor, "*query top"]
    """Squared distances, ascending; infinite where there were fewer candidates."""
    displacement: Int64[Tensor, "*query top"]
    """Where each lies, as an index of `Candidates.pairs`."""
    image: Int64[Tensor, "*query top"]
    """Which training image each is of, by its position among those that count; -1 where there is none."""
    weight: Float[Tensor, "*query"]
    """`Σ exp(-power (distance - nearest))`."""
    moment: Float[Tensor, "*query"]
    """`Σ exp(-power (distance - nearest)) (distance - nearest)`."""

    def posterior(self, power: Float[Tensor, "*query"]) -> tuple[Tensor, Tensor]:
        """The probability of each leading candidate, and the entropy over all in nats."""
        relative = self.distance.to(self.weight.dtype) - self.distance[..., :1].to(self.weight.dtype)
        probability = (-power[..., None] * relative).exp() / self.weight[..., None]
        return probability, (self.weight.log() + power * self.moment / self.weight).clamp(min=0)

    def sources(self, members: Tensor, candidates: Candidates, height: int, width: int) -> Tensor:
        """Image, row and column (3, batch, height, width, top) of what is named, -1 where there is nothing.

        Args:
            members: (image,) indices of the images that count.
            candidates: those of the pixels.
            height, width: of an image.
        """
        position, offsets = self.image.cpu(), torch.from_numpy(candidates.offsets())
        # (batch, height or 1, width or 1, top) each
        down, right = offsets[self.displacement.cpu().clamp(min=0)].unbind(dim=-1)
        rows, columns = torch.arange(height)[:, None, None], torch.arange(width)[:, None]
        image = members[position.clamp(min=0)]
        sources = torch.broadcast_tensors(image, (rows + down) % height, (columns + right) % width)
        return torch.where(position >= 0, torch.stack(sources), -1)


def power_of(alpha_bar: AlphaBar, device: torch.device) -> Tensor:
    """`1 / (2 (1 - alpha_bar))`, (batch, 1, 1): what a squared distance costs in nats."""
    return (1 / (2 * (1 - alpha_bar)))[:, None, None].to(device, sum_dtype(device))


def empty_ranking(shape: tuple[int, ...], top: int, like: Tensor) -> Ranking:
    """No candidates, for any arrangement of queries."""
    none = torch.full((*shape, top), -1, device=like.device)
    sums = torch.zeros(shape, dtype=sum_dtype(like.device), device=like.device)
    return Ranking(like.new_full((*shape, top), math.inf), none, none.clone(), sums, sums.clone())


def merge(a: Ranking, b: Ranking, power: Float[Tensor, "*query"]) -> Ranking:
    """The ranking of the candidates of both. Of equally far ones the first displacement comes first, and of these
    the first image."""
    top = a.distance.shape[-1]
    distance, displacement, image = _leading(a[:3], b[:3], top)
    weight, moment = torch.zeros_like(a.weight), torch.zeros_like(a.moment)
    for part in (a, b):
        farther = part.distance[..., 0].to(weight.dtype) - distance[..., 0].to(weight.dtype)
        farther = torch.where(part.weight > 0, farther, 0)  # where there is no candidate yet: infinity less infinity
        scale = (-power * farther).exp()
        weight += scale * part.weight
        moment += scale * (part.moment + farther * part.weight)
    return Ranking(distance, displacement, image, weight, moment)


def _leading(a: Sequence[Tensor], b: Sequence[Tensor], top: int) -> list[Tensor]:
    """The first of two lists of distances, displacements and images, in their order."""
    joined = [torch.cat(pair, dim=-1) for pair in zip(a, b, strict=True)]
    for key in (2, 1, 0):
        order = joined[key].argsort(dim=-1, stable=True)
        joined = [tensor.gather(-1, order) for tensor in joined]
    return [tensor[..., :top] for tensor in joined]


def ranking_bytes(x_t: Images, candidates: Candidates, top: int) -> int:
    """Memory that one more noisy image takes in `rank`, without what is made of training images."""
    height, width = candidates.outputs
    return 8 * (2 * x_t[0].numel() + height * width * (24 * top + 12))


def rank(x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, candidates: Candidates, top: int) -> Ranking:
    """The ranking of the training images of `chunks`, (batch, row, column), by torch on any device.

    Args:
        x_t: (batch, channel, height, width); gives the precision of distances.
        alpha_bar: (batch,) float64 in (0, 1).
        chunks: training images.
        candidates: of every pixel.
        top: how many leading candidates to keep.
    """
    batch = len(x_t)
    power = power_of(alpha_bar, x_t.device)
    signal = alpha_bar.sqrt().to(x_t.device, x_t.dtype)[:, None, None, None]
    result = empty_ranking((batch, *candidates.outputs), top, x_t)
    # The last row and column stand for what is beyond the border.
    query = F.pad(x_t, (0, 1, 0, 1))
    rows, columns = (
        [torch.from_numpy(shift.compared).to(x_t.device) for shift in axis]
        for axis in (candidates.rows, candidates.columns)
    )
    compared = max(t.shape[1] for t in rows) * max(t.shape[1] for t in columns)
    # Four arrays of distances, two of copies, and what sorting takes.
    each = compared * batch * (6 * x_t.dtype.itemsize + 40) + x_t.dtype.itemsize * 4 * x_t[0].numel()
    start = 0
    for images in chunks.of(x_t.dtype, each):
        numbers = torch.arange(start, start + len(images), device=x_t.device)
        start += len(images)
        images = F.pad(images, (0, 1, 0, 1))
        for displacement, (k, m) in enumerate(candidates.pairs.tolist()):
            distance = _distances(query, signal, images, rows[k], columns[m], candidates.window)
            where = candidates.pixels(k, m)
            _add(result, where, distance, displacement, numbers, power, top)
    return result


def _distances(
    query: Tensor, signal: Tensor, images: Tensor, rows: Tensor, columns: Tensor, window: tuple[int, int]
) -> Tensor:
    """`Σ (query - signal image)²` over windows at one displacement: (batch, row, column, image)."""
    squares = None
    for channel in range(query.shape[1]):
        own = query[:, channel, rows[0][:, None], columns[0]]  # (batch, row, column)
        other = images[:, channel, rows[1][:, None], columns[1]].permute(1, 2, 0)  # (row, column, image)
        square = (own[..., None] - signal * other).square_()
        squares = square if squares is None else squares.add_(square)
    assert squares is not None
    for dim, size in enumerate(window, start=1):
        count = squares.shape[dim] - size + 1
        total = squares.narrow(dim, 0, count).clone()
        for k in range(1, size):
            total += squares.narrow(dim, k, count)
        squares = total
    return squares


def _add(
    result: Ranking,
    where: tuple[slice, ...],
    distance: Tensor,
    displacement: int,
    numbers: Tensor,
    power: Tensor,
    top: int,
) -> None:
    """Adds the candidates (batch, row, column, image) of one displacement to the pixels `where`."""
    area = (slice(None), *where)
    weight, moment = result.weight[area], result.moment[area]
    leading = [tensor[area] for tensor in result[:3]]
    nearest = distance.amin(dim=-1)
    new = nearest <= leading[0][..., -1]
    old = leading[0][..., 0].to(weight.dtype)
    best = torch.minimum(old, nearest.to(weight.dtype))
    lower = torch.where(weight > 0, old - best, 0)
    scale = (-power * lower).exp()
    relative = distance.to(weight.dtype) - best[..., None]
    weights = (-power[..., None] * relative).exp_()
    moment.copy_(scale * (moment + lower * weight) + (weights * relative).sum(dim=-1))
    weight.copy_(scale * weight + weights.sum(dim=-1))
    if not bool(new.any()):
        return
    # Sorting is what takes time, and most pixels have nearer candidates already.
    nearest_first, order = distance[new].sort(dim=-1, stable=True)
    order = order[:, :top]
    found = (nearest_first[:, :top], torch.full_like(order, displacement), numbers[order])
    for mine, tensor in zip(leading, _leading([mine[new] for mine in leading], found, top), strict=True):
        mine[new] = tensor
