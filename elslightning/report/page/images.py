"""Images as text that a page can hold."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from elslightning.diffusion.pixels import to_bytes


def data_uri(image: Tensor | np.ndarray) -> str:
    """An image (channel, height, width) in [-1, 1] as a `data:` address of a PNG file."""
    pixels = to_bytes(image).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
