"""CropMachine: what the machines share whose posteriors write whole crops of an image, averaged where they overlap."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import LogWeight, Partial, empty_partial, merge, sum_dtype
from elslightning.machines.machine import ScoreMachine


class Crops(ABC):
    """Sets of pixels of an image: what sums over each of them, and spreads values over them."""

    count: int
    """How many crops there are."""

    @abstractmethod
    def gather(self, maps: Tensor) -> Tensor:
        """The sums (..., crop) of maps (..., height, width) over every crop."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """The sums (..., height, width), at every pixel, of the values (..., crop) of all crops that cover it."""


class CropMachine(ScoreMachine):
    """A machine that has a posterior over the training images for every one of some crops.

    Every crop averages the same crop of all training images, weighted by how well they agree on it with the noisy
    image, and every pixel is the mean of what the crops that cover it say:

        x0_hat(u) = 1 / cover(u) Σ_i x_i(u) Σ_{l covers u} softmax_i(-‖(x_t - a x_i) on crop l‖² / (2 (1 - alpha_bar)))

    In two passes over the images: the normaliser of every crop, then the weights, spread over the crops. Both are in
    float64. The second needs the first over all images, so a shard of a bank will not do.
    """

    @abstractmethod
    def _crops(self, setting: int) -> Crops:
        """The crops of a setting, on the device of the images."""

    @abstractmethod
    def _most_crops(self, setting: int) -> int:
        """How many there may be."""

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        _, channels, height, width = x_t.shape
        crops = max(self._most_crops(int(setting)) for setting in patch_sizes)
        # Its sums, and beside them what is made of it with one training image.
        return 8 * (height * width * (4 * channels + 6) + 8 * crops)

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        turns = 2 * len(patch_sizes)
        return [
            _two_passes(
                x_t, alpha_bar, self._crops(int(setting)), chunks.turn(2 * k, turns), chunks.turn(2 * k + 1, turns)
            )
            for k, setting in enumerate(patch_sizes)
        ]


def _two_passes(x_t: Images, alpha_bar: AlphaBar, crops: Crops, first: Chunks, second: Chunks) -> Partial:
    """The averages (batch, height, width) of training pixels, as many as the image has channels."""
    batch, channels, height, width = x_t.shape
    query = x_t.to(sum_dtype(x_t.device))
    coefficients = LogWeight.of(alpha_bar, 1, query)
    signal, power = (coefficient[:, None, None, None] for coefficient in coefficients)

    def log_weights(chunks: Chunks) -> Iterator[tuple[Tensor, Float64[Tensor, "batch image crop"]]]:
        """Training images, and their log-weights on every crop."""
        each = 8 * batch * (4 * height * width + 4 * crops.count) + 8 * 3 * channels * height * width
        for images in chunks.of(query.dtype, each):
            agreement = torch.einsum("bcyx,ncyx->bnyx", query, images)
            yield images, crops.gather(signal * agreement - power * images.square().sum(dim=1))

    total = empty_partial((batch, crops.count), 0, x_t.device)
    for _, log_weight in log_weights(first):
        maximum = log_weight.amax(dim=1)
        weight = (log_weight - maximum[:, None]).exp().sum(dim=1)
        total = merge(total, Partial(maximum, weight, total.weighted))
    share, weighted = query.new_zeros((batch, height, width)), query.new_zeros((batch, height, width, channels))
    for images, log_weight in log_weights(second):
        posterior = (log_weight - total.maximum[:, None]).exp() / total.weight[:, None]
        spread = crops.spread(posterior)  # (batch, image, height, width)
        share += spread.sum(dim=1)
        weighted += torch.einsum("bnyx,ncyx->byxc", spread, images)
    return Partial(torch.zeros_like(share), share, weighted)
