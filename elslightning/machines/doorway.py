"""What machines take for a training set, and what they refuse."""

import math

import torch
from torch import Tensor

from elslightning.diffusion.shapes import Bank, Labels
from elslightning.system.errors import InputError, kind

MOST_CHANNELS = 4
"""More channels than that, and so few columns, are taken for images with their channels in the last place."""
BEYOND = 1e-3
"""How far a pixel may lie outside [-1, 1]: what is resized and normalised may, by rounding."""


def check_bank(images: Bank, labels: Labels | None, owner: str, *, shard: bool = False) -> None:
    """Finds out whether machines can be made over some images.

    Args:
        images, labels: as `ScoreMachine` takes them.
        owner: who is to have them, named in errors.
        shard: whether there may be none, for others have more.

    Raises:
        InputError: for what is no tensor; another shape, or channels in the last place; numbers that are neither
            floating point in [-1, 1] nor bytes, or not finite; and labels that do not match.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"{owner} needs images as a torch tensor, not {kind(images)}")
    if images.ndim != 4 or 0 in images.shape[shard:]:
        raise InputError(
            f"{owner} needs images of shape (N, channel, height, width), none of them 0, not {tuple(images.shape)}"
        )
    _, channels, _, last = images.shape
    if channels > MOST_CHANNELS >= last:
        raise InputError(
            f"{owner} needs images of shape (N, channel, height, width); {tuple(images.shape)} seems to have its "
            f"channels last: images.permute(0, 3, 1, 2)"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(
            f"{owner} needs images as floating point numbers in [-1, 1], or as bytes (uint8), not {images.dtype}"
        )
    if labels is not None and not (isinstance(labels, Tensor) and labels.dtype == torch.int64):
        raise InputError(f"{owner} needs labels as an int64 tensor, not {kind(labels)}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise InputError(f"{owner} got {len(images)} images and {len(labels)} labels")
    if images.is_floating_point() and images.numel():
        low, high = (float(value) for value in images.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"the images of {owner} contain a pixel that is not finite")
        if max(-low, high) > 1 + BEYOND:
            raise InputError(
                f"the images of {owner} must lie in [-1, 1], not in [{low:.4g}, {high:.4g}]; 0 … 255 are taken as bytes"
            )
