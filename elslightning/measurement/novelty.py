"""Novelty: whether a sample is new, or a training image again; and whether it is an image at all."""

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import Bank, Images

MEMORISED = 1 / 3
"""A sample is memorised whose nearest training image is nearer than this share of the distance to the second."""
BEYOND = 1.05
"""A value greater than this in magnitude is outside of [-1, 1]; a little beyond is how networks end."""
BUDGET = 2**28
"""Bytes of a chunk of training images and the distances to them."""
_NEAREST = 4


def nearest_ratio(samples: Images, images: Bank, *, budget: int = BUDGET) -> Float64[Tensor, " batch"]:
    """The distance of each sample to its nearest training image over that to the second nearest, from 0 to 1.

    Below `MEMORISED` the sample counts as memorised; the share of these is f_mem (Bonnaire et al., arXiv 2505.17638).
    It is 0 for a copy of a training image, even of one that is there twice, and 1 where there is no second image.

    Args:
        samples: (batch, channel, height, width).
        images: (N, channel, height, width), of all classes; floating point in [-1, 1], or bytes. On any device.
        budget: bytes that a chunk of training images and their distances may take.

    Returns:
        (batch,) on the CPU.

    >>> images = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    >>> nearest_ratio(torch.tensor([0.25]).reshape(1, 1, 1, 1).expand(1, 1, 2, 2), images).round(decimals=6).tolist()
    [0.333333]
    """
    if len(images) < 2:
        return (samples.cpu() != to_floats(images.cpu())).flatten(1).any(dim=1).double()
    queries = samples.float().flatten(1)
    chunk = max(2, budget // (4 * (2 * queries.shape[1] + len(queries))))
    best = queries.new_full((len(queries), 0), torch.inf)
    where = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(images), chunk):
        keys = to_floats(images[start : start + chunk]).to(queries).flatten(1)
        # Up to |sample|², which is the same for all; the few nearest are measured exactly below.
        distance = keys.square().sum(dim=1) - 2 * queries @ keys.T
        places = torch.arange(start, start + len(keys), device=queries.device).expand_as(distance)
        best, where = torch.cat([best, distance], dim=1), torch.cat([where, places], dim=1)
        best, chosen = best.topk(min(_NEAREST, best.shape[1]), dim=1, largest=False)
        where = where.gather(1, chosen)
    found = []
    for sample, places in zip(samples.double().flatten(1).cpu(), where.to(images.device), strict=True):
        near = to_floats(images[places]).cpu().double().flatten(1)
        found.append((near - sample).norm(dim=1).sort().values[:2])
    first, second = torch.stack(found, dim=1)
    return torch.where(first == 0, 0.0, first / second)


def outside(samples: Images) -> Float64[Tensor, " batch"]:
    """The share of each sample's values that lie outside of [-1, 1], see `BEYOND`; one that is no number does too."""
    return (~(samples.abs() <= BEYOND)).flatten(1).cpu().double().mean(dim=1)
