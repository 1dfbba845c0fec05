"""Manifolds of nearest neighbours: precision, recall, density and coverage, of images and of patches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from elslightning.system.errors import InputError

BUDGET = 2**24
"""Bytes that a chunk of distances may take: what stays near the processor is gone through three times as fast."""
ROUNDING = 1e-5
"""Distances below this are those of equal points, which a product of matrices rounds; grey levels are farther apart."""


@dataclass(frozen=True)
class Manifold:
    """Balls around points, each as large as the distance to the point's own k-th nearest other point (Kynkäänniemi et
    al., arXiv 1904.06991; Naeem et al., arXiv 2002.09797). A point on the surface of a ball is not in it.

    With `real` the manifold of real points and `fake` that of generated ones, and k the number of neighbours,
    precision is `real.holds(fake.points)`, recall `fake.holds(real.points)`, density `real.count(fake.points) / k` and
    coverage `real.reached(fake.points)`, each averaged: the definitions of the package prdc.

    Attributes:
        points: (n, dim).
        radius: (n,) of the balls.
    """

    points: Float[Tensor, "n dim"]
    radius: Float64[Tensor, " n"]

    @classmethod
    def of(cls, points: Float[Tensor, "n dim"], neighbours: int, *, distinct: bool = False) -> "Manifold":
        """The manifold of some points.

        Args:
            points: (n, dim), more of them than neighbours.
            neighbours: k, at least 1.
            distinct: equal points count once. Among patches of an even background a ball would have no extent.

        Raises:
            InputError: if there are not more points than neighbours.
        """
        points = points.unique(dim=0) if distinct else points
        if not 1 <= neighbours < len(points):
            kind = "distinct points" if distinct else "points"
            raise InputError(f"a manifold of {neighbours} neighbours needs more {kind} than {len(points)}")
        radius = [near.topk(neighbours + 1, dim=1, largest=False).values[:, -1] for near in _chunks(points, points)]
        return cls(points, torch.cat(radius))

    def holds(self, queries: Float[Tensor, "queries dim"]) -> Bool[Tensor, " queries"]:
        """Whether each of some points lies in any of the balls."""
        return torch.cat([(near < self.radius).any(dim=1) for near in _chunks(queries, self.points)])

    def count(self, queries: Float[Tensor, "queries dim"]) -> Int64[Tensor, " queries"]:
        """In how many of the balls each of some points lies."""
        return torch.cat([(near < self.radius).sum(dim=1) for near in _chunks(queries, self.points)])

    def reached(self, queries: Float[Tensor, "queries dim"]) -> Bool[Tensor, " n"]:
        """Of each ball, whether any of some points lies in it."""
        near = torch.cat([near.amin(dim=1) for near in _chunks(self.points, queries)])
        return near < self.radius


def _chunks(a: Tensor, b: Tensor) -> Iterator[Float64[Tensor, "chunk n"]]:
    """The distances from `a` to `b`, some rows at a time; those of equal points are 0."""
    b = b.double()
    for part in a.split(max(1, BUDGET // (8 * len(b)))):
        apart = torch.cdist(part.double(), b, compute_mode="use_mm_for_euclid_dist")
        yield apart.where(apart > ROUNDING, 0.0)


def patches_of(
    images: Float[Tensor, "n channel height width"], patch_size: int, count: int, generator: torch.Generator
) -> Float[Tensor, "n count dim"]:
    """`count` patches of every image, from anywhere inside it, in whole grey levels.

    Args:
        images: (n, channel, height, width) in [-1, 1]; what lies beyond is clipped.
        patch_size: at most the shorter side.
        count: of each image; fewer, each place once, where it has not so many.
        generator: chooses the places, for every image others.

    Returns:
        (n, count, channel · patch_size²).
    """
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    windows = levels.unfold(2, patch_size, 1).unfold(3, patch_size, 1)  # a view: nothing is copied
    down, across = windows.shape[2:4]
    places = torch.rand((len(images), down * across), generator=generator).argsort(dim=1)[:, :count]
    image = torch.arange(len(images))[:, None]
    return windows[image, :, places // across, places % across].flatten(2)
