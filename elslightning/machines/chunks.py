"""Chunks: the training images of a bank, a few at a time, and what comes of going through them."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import Images
from elslightning.machines.kernels import Partial, empty_partial, merge
from elslightning.machines.memory import fitting


def _quiet(fraction: float) -> None:
    """Tells nobody."""


class Chunks:
    """Training images, a few at a time, with a word on progress after each.

    Args:
        images: the bank.
        members: indices of the images that count.
        budget: bytes that a chunk and what is made of it may take.
        label: the class of the images that count; None where all do.
        tick: told the fraction of the images that is done.
    """

    cached: ClassVar[int] = 2**24
    """Bytes of a chunk that are worthwhile on a CPU: more would only leave the cache."""
    launched: ClassVar[int] = 2**31
    """Those on another device: it waits for every chunk to be launched."""

    def __init__(
        self,
        images: Tensor,
        members: Tensor,
        budget: int,
        label: int | None = None,
        tick: Callable[[float], None] = _quiet,
    ) -> None:
        self.images = images
        self.members = members
        self.budget = budget
        self.label = label
        self._tick = tick

    def telling(self, tick: Callable[[float], None]) -> "Chunks":
        """The same chunks, with somebody else told of progress."""
        return Chunks(self.images, self.members, self.budget, self.label, tick)

    def turn(self, k: int, n: int) -> "Chunks":
        """The same chunks for the k-th of n passes over them, which count as one in what is told of progress."""
        tick = self._tick
        return self.telling(lambda fraction: tick((k + fraction) / n))

    def skip(self) -> None:
        """Says that all is done: no image need be looked at."""
        self._tick(1.0)

    def of(self, dtype: torch.dtype, image_bytes: int, spare: int = 0) -> Iterator[Tensor]:
        """The images in [-1, 1], as many at a time as the budget allows.

        Args:
            dtype: to convert them to.
            image_bytes: what one image and everything made of it takes.
            spare: bytes of the budget that are needed for something else.
        """
        most = max(1, (self.cached if self.images.device.type == "cpu" else self.launched) // image_bytes)
        count = fitting(self.budget - spare, image_bytes, most, "one training image")
        done = 0
        for chunk in self.members.split(count) if len(self.members) else ():
            yield to_floats(self.images[chunk], dtype)
            done += len(chunk)
            self._tick(done / len(self.members))


def accumulate(start: Partial, parts: Iterator[Partial]) -> Partial:
    """`start` merged with all parts."""
    for part in parts:
        start = merge(start, part)
    return start


def no_candidates(x_t: Images) -> Partial:
    """The empty average of every pixel of a batch."""
    batch, channels, height, width = x_t.shape
    return empty_partial((batch, height, width), channels, x_t.device)


def whole_image_partial(partial: Partial, x_t: Images) -> Partial:
    """An average of whole images, (1, batch) with values (1, batch, channel · height · width), for every pixel."""
    batch, channels, height, width = x_t.shape
    return Partial(
        partial.maximum.reshape(batch, 1, 1).expand(batch, height, width),
        partial.weight.reshape(batch, 1, 1).expand(batch, height, width),
        partial.weighted.reshape(batch, channels, height, width).permute(0, 2, 3, 1),
    )
