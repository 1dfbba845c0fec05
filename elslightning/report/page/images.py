"""Images as bytes and as text that a page can hold."""

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def as_bytes(images: Tensor | np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as bytes, 0 … 255; what lies beyond is clipped."""
    values = torch.as_tensor(images).double()
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def data_uri(image: Tensor | np.ndarray) -> str:
    """An image (channel, height, width) in [-1, 1] as a `data:` address of a PNG file."""
    pixels = as_bytes(image).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
