"""ES: the equivariant score machine."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from elslightning.diffusion.shapes import AlphaBar, Images
from elslightning.machines.chunks import Chunks, accumulate, whole_image_partial
from elslightning.machines.kernels import LogWeight, Partial, empty_partial, sum_dtype
from elslightning.machines.machine import ScoreMachine


class EquivariantScoreMachine(ScoreMachine):
    """The posterior mean of the training set and all its circular translates (Kamb & Ganguli, eqs. 5-6).

    The distances to all translates of an image are a circular cross-correlation, and their weighted average is
    a circular convolution: both by Fourier transform, in float64 wherever the device has it.

    Arguments and errors as in `ScoreMachine`.
    """

    padding_mode: ClassVar[str] = "circular"
    pooled: ClassVar[bool] = True
    attributable: ClassVar[bool] = True

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        # Its transform, its sums, and the log-weights of the translates of at least one training image.
        return 8 * x_t[0].numel() * 10 + 8 * x_t[0, 0].numel() * 6

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        batch, channels, height, width = x_t.shape
        query = x_t.to(sum_dtype(x_t.device))
        query_transform = rfft2(query)[:, None]  # (batch, 1, channel, frequencies)
        coefficients = LogWeight.of(alpha_bar, 1, query)
        signal, power = coefficients.signal[:, None, None, None], coefficients.power[:, None, None, None]
        start = empty_partial((1, batch), query[0].numel(), x_t.device)

        def parts() -> Iterator[Partial]:
            each = 8 * height * width * (6 * batch + 4 * channels * (1 + batch))
            for images in chunks.of(query.dtype, each):
                transform = rfft2(images)[None]  # (1, image, channel, frequencies)
                correlation = irfft2((query_transform * transform.conj()).sum(dim=2), s=(height, width))
                norm = images.square().sum(dim=(1, 2, 3))[None, :, None, None]
                log_weight = signal * correlation - power * norm  # (batch, image, translation down, right)
                maximum = log_weight.amax(dim=(1, 2, 3), keepdim=True)
                weight = (log_weight - maximum).exp()
                mean_transform = (rfft2(weight)[:, :, None] * transform).sum(dim=1)
                yield Partial(
                    maximum.reshape(1, batch),
                    weight.sum(dim=(1, 2, 3)).reshape(1, batch),
                    irfft2(mean_transform, s=(height, width)).reshape(1, batch, -1),
                )

        return [whole_image_partial(accumulate(start, parts()), x_t)]
