"""Images in [-1, 1] to bytes, and back."""

import numpy as np
from torch import Tensor


def as_bytes(image: Tensor) -> np.ndarray:
    """An image (channel, height, width) in [-1, 1], clipped, as bytes (height, width, 3)."""
    pixels = (image.float().cpu() + 1).mul(127.5).round().clamp(0, 255).byte()
    return pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).contiguous().numpy()
