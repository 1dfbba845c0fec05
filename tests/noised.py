"""Noisy images, and noise levels from little to pure noise."""

import torch

from elslightning.diffusion.schedule import CosineSchedule, add_noise
from elslightning.testing import levels

LEVELS = levels(
    *(float(CosineSchedule().alpha_bar(torch.tensor(t, dtype=torch.float64))) for t in (0.05, 0.3, 0.75, 1.0))
)


def noisy(clean, alpha_bar, seed=0):
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return add_noise(clean, noise, alpha_bar)
