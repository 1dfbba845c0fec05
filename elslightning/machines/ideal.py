"""IS: the ideal score machine."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.kernels import LogWeight, Partial, attend, attention_block, empty_partial, working_dtype
from elslightning.machines.machine import Chunks, ScoreMachine, accumulate, whole_image_partial


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
        dim = x_t[0].numel()
        dtype = working_dtype(x_t, float(alpha_bar.max()), dim)
        query = x_t.to(dtype).reshape(1, len(x_t), dim)
        coefficients = LogWeight.of(alpha_bar, 1, query)
        start = empty_partial((1, len(x_t)), dim, x_t.device)
        block = attention_block(x_t.device, chunks.budget // 4)

        def parts() -> Iterator[Partial]:
            for images in chunks.of(dtype, 3 * 8 * dim, chunks.budget // 4):
                key = images.reshape(1, len(images), dim)
                yield attend(start, query, key, key.to(x_t.dtype), coefficients, block)

        return [whole_image_partial(accumulate(start, parts()), x_t)]
