"""IS: the ideal score machine."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.chunks import Chunks, whole_image_partial
from elslightning.machines.kernels import LogWeight, Partial, attend, attention_block, empty_partial, working_dtype
from elslightning.machines.machine import ScoreMachine


class IdealScoreMachine(ScoreMachine):
    """The exact posterior mean of the training set (Kamb & Ganguli, eqs. 3-4): it only ever memorises.

    Every pixel is the same average over whole training images, weighted by
    `softmax(-‖x_t - sqrt(alpha_bar) image‖² / (2 (1 - alpha_bar)))`.

    Arguments and errors as in `ScoreMachine`.
    """

    attributable: ClassVar[bool] = True

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 8 * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        dtype = working_dtype(x_t, float(alpha_bar.max()), x_t[0].numel())
        query = x_t.to(dtype).flatten(1)
        found = attend_images(query, LogWeight.of(alpha_bar, 1, query), chunks, x_t.dtype)
        return [whole_image_partial(found, x_t)]


def attend_images(
    query: Float[Tensor, "query dim"], coefficients: LogWeight, chunks: Chunks, dtype: torch.dtype
) -> Partial:
    """The averages (1, query) of whole training images, (1, query, dim).

    Args:
        query: flattened noisy images, in the working precision.
        coefficients: of the log-weights, one pair per query.
        chunks: the training images.
        dtype: of the values that are averaged.
    """
    queries, dim = query.shape
    found = empty_partial((1, queries), dim, query.device)
    block = attention_block(query.device, chunks.budget // 4)
    for images in chunks.of(query.dtype, 3 * 8 * dim, chunks.budget // 4):
        key = images.reshape(1, len(images), dim)
        found = attend(found, query[None], key, key.to(dtype), coefficients, block)
    return found
