"""pspc_flex: posteriors over crops of any shape."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Labels
from elslightning.machines.crops import CropMachine, Crops
from elslightning.machines.kernels import sum_dtype
from elslightning.machines.parameters import ParameterTable
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part
from elslightning.system.tensorfiles import read_tensors

CROPS, LEVELS = "crops", "alpha_bar"


class FlexibleCrops(Crops):
    """Crops of any shape; equal ones are summed over once and count as often as they occur.

    A pixel that no crop covers has one more, of itself alone; crops without a pixel say nothing.

    Args:
        masks: (crop, height, width), true where a crop covers a pixel.
        dtype: of the sums.
    """

    def __init__(self, masks: Bool[Tensor, "crop height width"], dtype: torch.dtype) -> None:
        self.shape = masks.shape[1:]
        rows = masks.flatten(1)
        alone = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)[~rows.any(dim=0)]
        rows = torch.cat([rows[rows.any(dim=1)], alone])
        different, times = rows.byte().unique(dim=0, return_counts=True)
        self.masks, self.times = different.to(dtype), times.to(dtype)  # (crop, pixel), (crop,)
        self.count = len(different)

    def gather(self, maps: Tensor) -> Tensor:
        return maps.flatten(-2) @ self.masks.T

    def spread(self, values: Tensor) -> Tensor:
        return ((values * self.times) @ self.masks).unflatten(-1, self.shape)


class FlexibleCropScoreMachine(CropMachine):
    """PSPC with crops of any shape (Niedoba et al., arXiv 2411.19339): one for every pixel, or any other number.

    The formula is that of `CropMachine`. The published crops hold, of every pixel, those that a network looks at most
    for it, until they have a share of all that it looks at: see `crops_of_share`. If every crop is the whole image, it
    is the ideal score machine. A pixel that no crop covers takes its own one-pixel crop. A training image and a noisy
    one cost `crops · pixels` products in each of two passes; equal crops count once.

    Args:
        images, labels, memory_budget: as in `ScoreMachine`. It takes no shard of a bank.
        crops: truth values (crop, height, width), or (level, crop, height, width) for several noise levels; or a
            safetensors file that holds them as "crops", and the levels as "alpha_bar".
        alpha_bar: (level,) signal powers in (0, 1) that several levels of crops are for; between them, the nearest
            counts, as in a `ParameterTable`.

    Raises:
        InputError: also for crops of another size than the images, or levels that do not match; and for no crops.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        crops: Tensor | str | Path | None = None,
        alpha_bar: Sequence[float] | Tensor | None = None,
        memory_budget: int | None = None,
    ) -> None:
        super().__init__(images, labels, memory_budget=memory_budget)
        name = type(self).__name__
        if crops is None:
            raise InputError(f"{name} needs crops: truth values (crop, height, width), or a file of them")
        if not isinstance(crops, Tensor):
            place = crops
            held, _ = read_tensors(place)
            if CROPS not in held:
                raise InputError(f"{place} is not a file of crops: it has no {CROPS}")
            crops, alpha_bar = held[CROPS], held.get(LEVELS, alpha_bar)
        several = crops.ndim == 4
        if crops.dtype != torch.bool or crops.shape[several:][1:] != images.shape[2:] or 0 in crops.shape:
            wanted = " x ".join(str(side) for side in images.shape[2:])
            raise InputError(
                f"{name} needs crops of shape (crop, height, width) or (level, crop, height, width), truth values over "
                f"{wanted} pixels, not {str(crops.dtype).removeprefix('torch.')} of {tuple(crops.shape)}"
            )
        if several != (alpha_bar is not None):
            raise InputError(f"{name} needs alpha_bar exactly when there are crops for several noise levels")
        self.register_buffer("crops", crops.to(images.device), persistent=False)
        levels = [0.5] if alpha_bar is None else alpha_bar
        self._levels = ParameterTable(levels, {CROPS: torch.arange(len(crops) if several else 1)})

    crops: Tensor

    def _options(self) -> Sequence[Part]:
        return [self.crops, str(self._levels.to_dict())]

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        """Which level's crops count at each noise level."""
        return self._levels.at(alpha_bar, CROPS).long()

    def _crops(self, setting: int) -> FlexibleCrops:
        masks = self.crops if self.crops.ndim == 3 else self.crops[setting]
        return FlexibleCrops(masks, sum_dtype(self.images.device))

    def _most_crops(self, setting: int) -> int:
        return self.crops.shape[-3] + self.images.shape[2:].numel()


def crops_of_share(influence: Float[Tensor, "*crop height width"], share: float) -> Bool[Tensor, "*crop height width"]:
    """Of every crop the pixels that matter most, in falling order, until they have a share of the whole.

    Args:
        influence: how much each pixel matters, at least 0: for instance mean absolute gradients of a network's output
            at every pixel with respect to all pixels.
        share: in (0, 1]; at 1 every crop is the whole image.

    Raises:
        InputError: for a share outside its range.

    >>> crops_of_share(torch.tensor([[[0.5, 0.3, 0.2]]]), 0.6).tolist()
    [[[True, True, False]]]
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of a crop must lie in (0, 1], not {share}")
    flat = influence.double().flatten(-2)
    if share == 1:
        return torch.ones_like(influence, dtype=torch.bool)
    order = flat.argsort(dim=-1, descending=True, stable=True)
    sorted_ = flat.gather(-1, order)
    before = sorted_.cumsum(dim=-1) - sorted_
    kept = before < share * flat.sum(dim=-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, order, kept).reshape(influence.shape)
