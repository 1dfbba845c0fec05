"""The algorithm of the paper's public code, written anew: the yardstick of the timings.

One noisy image at a time; the patches of a few training images become the filters of a convolution, which gives
the inner products of all pairs of a pixel and a patch at once; log-weights and weights of all pairs are
materialised; partial sums are merged over the batches of training images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def els_posterior_mean(x_t: Tensor, alpha_bar: float, images: Tensor, patch_size: int, batch: int = 16) -> Tensor:
    """The equivariant local score machine, circular, for one image (channel, height, width), float32."""
    radius = patch_size // 2
    channels, height, width = x_t.shape
    sides = (radius, radius, radius, radius)
    query = F.pad(x_t[None], sides, mode="circular")
    query_norm = F.conv2d(query.square(), torch.ones(1, channels, patch_size, patch_size))  # (1, 1, height, width)
    maximum = torch.full((1, 1, height, width), -torch.inf)
    weight = torch.zeros(1, 1, height, width)
    weighted = torch.zeros(1, channels, height, width)
    for part in images.split(batch):
        patches = F.unfold(F.pad(part, sides, mode="circular"), patch_size)  # (image, dim, location)
        filters = patches.transpose(1, 2).reshape(-1, channels, patch_size, patch_size)
        products = F.conv2d(query, filters)  # (1, patch, height, width)
        norm = filters.square().sum(dim=(1, 2, 3))[None, :, None, None]
        log_weight = -(query_norm - 2 * alpha_bar**0.5 * products + alpha_bar * norm) / (2 * (1 - alpha_bar))
        new_maximum = torch.maximum(maximum, log_weight.amax(dim=1, keepdim=True))
        weights = torch.exp(log_weight - new_maximum)
        scale = torch.exp(maximum - new_maximum)
        weight = weight * scale + weights.sum(dim=1, keepdim=True)
        values = filters[:, :, radius, radius]  # (patch, channel)
        weighted = weighted * scale + torch.einsum("pc,bphw->bchw", values, weights)
        maximum = new_maximum
    return (weighted / weight)[0]
