"""Where samples start: noise and classes that follow from a seed alone, the same on every device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CALIBRATED, COMPARED, HELD_OUT = 1, 2, 3
"""The streams of a seed: noise of the samples that calibrate, of the pairs that are compared, and which held-out images
are taken."""


@dataclass(frozen=True)
class Starts:
    """What is drawn from a seed.

    Args:
        seed: at least 0.
    """

    seed: int

    def draw(
        self, stream: int, count: int, images: Tensor, labels: Tensor | None, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Noise for `count` samples, and as labels the classes of the bank in turn.

        Args:
            stream: one of those above.
            count: of samples; the first ones do not depend on it.
            images, labels: (N, channel, height, width) and (N,) or None, the bank.
            device: of the result.
        """
        noise = torch.randn(count, *images.shape[1:], generator=self.generator(stream)).to(device)
        if labels is None:
            return noise, None
        present = labels.unique()
        return noise, present[torch.arange(count, device=labels.device) % len(present)].to(device)

    def generator(self, stream: int) -> torch.Generator:
        """Of random numbers, on the CPU."""
        state = np.random.SeedSequence([self.seed, stream]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
