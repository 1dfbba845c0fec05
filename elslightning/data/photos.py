"""Small colour images without a download: crops of scikit-learn's two sample photographs."""

import numpy as np
import torch
from jaxtyping import UInt8
from sklearn.datasets import load_sample_images
from torch import Tensor

from elslightning.data.request import Request, Split
from elslightning.system.errors import InputError

# The photographs are 427×640; their lowest rows, over the whole width, are kept for validation.
_VAL_ROWS = 128
# Pixels between crops, in halved photographs; 5 leaves 1,824 training crops of 32×32.
_TRAIN_STRIDE, _VAL_STRIDE = 5, 8
# Standard deviation below which a crop is left out, in 1/255: half of the training crops would be sky and shadow.
_CONTRAST = 10


def photos(request: Request) -> tuple[Split, Split]:
    """Crops of a temple above a lake and of a dahlia, 3 channels, of side `image_size` or 32, without labels.

    The photographs are halved (2×2 pixels are averaged), so that a crop shows more than one surface. Training crops
    start every 5 pixels in the upper 298 rows, validation crops every 8 pixels in the lowest 128 rows: they share no
    pixel, and differ in kind: validation has more leaves. Crops of nearly one colour are left out. Within a set crops
    overlap: at 32×32, neighbours among the 1,824 training crops share 84 % of their pixels, so that the ideal score
    machine, too, knows most things at many positions. The order is a fixed random one: the first n crops come from
    both photographs and from everywhere.

    Raises:
        InputError: if `image_size` is not within 2 … 64, the halved height of the validation rows.
    """
    side = request.image_size or 32
    if not 2 <= side <= _VAL_ROWS // 2:
        raise InputError(f"data.image_size={side}, but crops of photos have 2 … {_VAL_ROWS // 2} pixels")
    whole = [torch.tensor(photo).permute(2, 0, 1) for photo in load_sample_images().images]
    # Cut before halving: no average reaches over the cut.
    train = [crops(halve(photo[:, :-_VAL_ROWS]), side, _TRAIN_STRIDE) for photo in whole]
    val = [crops(halve(photo[:, -_VAL_ROWS:]), side, _VAL_STRIDE) for photo in whole]
    return Split(_select(torch.cat(train)), None), Split(_select(torch.cat(val)), None)


def halve(image: UInt8[Tensor, "channel height width"]) -> UInt8[Tensor, "channel height_2 width_2"]:
    """The means of squares of 2×2 pixels; an odd last row or column is left out."""
    return torch.nn.functional.avg_pool2d(image.float(), 2).round().to(torch.uint8)


def crops(image: UInt8[Tensor, "channel height width"], side: int, stride: int) -> UInt8[Tensor, "n channel side side"]:
    """All squares of `side` pixels that start at multiples of `stride`, row by row."""
    squares = image.unfold(1, side, stride).unfold(2, side, stride)  # (channel, row, column, side, side)
    return squares.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def _select(images: Tensor) -> Tensor:
    # RandomState, because numpy promises that its numbers never change.
    images = images[torch.from_numpy(np.random.RandomState(0).permutation(len(images)))]
    return images[images.float().std(dim=(2, 3), correction=0).mean(dim=1) > _CONTRAST]
