"""Images in [-1, 1] to bytes, and back: 0 … 255 stands for -1 … 1."""

import numpy as np
import torch
from torch import Tensor


def to_bytes(images: Tensor | np.ndarray) -> np.ndarray:
    """Images in [-1, 1], of any shape, as bytes of the same shape; what lies beyond is clipped.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 2.0])).tolist()
    [0, 128, 255]
    """
    values = torch.as_tensor(images).cpu().double()
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def to_floats(images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Images as floating point in [-1, 1].

    Args:
        images: bytes, or floating point, which is in [-1, 1] already.
        dtype: of the result; None makes float32 of bytes, and leaves others as they are.

    >>> to_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    [-1.0, 1.0]
    """
    if images.dtype != torch.uint8:
        return images if dtype is None else images.to(dtype)
    return images.to(dtype or torch.float32).div_(127.5).sub_(1)


def as_bytes(image: Tensor) -> np.ndarray:
    """An image (channel, height, width) in [-1, 1], clipped, as bytes (height, width, 3) of a picture file."""
    pixels = to_bytes(image)
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
