"""IS: the ideal score machine."""

import torch
from torch import Tensor

from elslightning.machines.kernels import LogWeight, attend, empty_partial, posterior_mean, working_dtype
from elslightning.machines.machine import ScoreMachine
from elslightning.shapes import AlphaBar, Images


class IdealScoreMachine(ScoreMachine):
    """The exact posterior mean of the training set (Kamb & Ganguli, eqs. 3-4): it only ever memorises.

    Every pixel is the same average over whole training images, weighted by
    `softmax(-‖x_t - sqrt(alpha_bar) image‖² / (2 (1 - alpha_bar)))`.

    Arguments and errors as in `ScoreMachine`.
    """

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        return torch.zeros(alpha_bar.shape, dtype=torch.int64)

    def _posterior_mean(self, x_t: Images, alpha_bar: AlphaBar, members: Tensor, patch_size: int) -> Images:
        dim = x_t[0].numel()
        dtype = working_dtype(x_t, float(alpha_bar.max()), dim)
        query = x_t.to(dtype).reshape(1, len(x_t), dim)
        coefficients = LogWeight.of(alpha_bar, 1, query)
        partial = empty_partial(1, len(x_t), dim, x_t)
        for images in self._chunks(members, dim, dtype):
            key = images.reshape(1, len(images), dim)
            partial = attend(partial, query, key, key.to(x_t.dtype), coefficients)
        return posterior_mean(partial).reshape(x_t.shape)
