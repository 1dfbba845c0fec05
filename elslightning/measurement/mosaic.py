"""The mosaic of an image: the pieces of training images it is put together from, and how much of it is one image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.schedule import add_noise
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.machines.kernels import sum_dtype
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.patches import PatchMachine
from elslightning.measurement.attribution import Attribution, attribute, check_attributable
from elslightning.measurement.consistency import NOISE_POWER


@dataclass(frozen=True)
class Mosaic:
    """The tiles of some images: maximal 4-connected regions of pixels whose first sources lie in one training image at
    one offset.

    Attributes:
        tile: (batch, height, width) tile of every pixel, from 0 in each image, by descending size; tiles of one size
            in the order of their first pixels.
        image: (batch, height, width) training image that the pixel is copied from.
        down, right: (batch, height, width) offset of the source: its row less the pixel's own, its column less the
            pixel's own; around the border, the shorter way.
        weight: (batch, height, width) posterior probability of the source.
    """

    tile: Int64[Tensor, "batch height width"]
    image: Int64[Tensor, "batch height width"]
    down: Int64[Tensor, "batch height width"]
    right: Int64[Tensor, "batch height width"]
    weight: Float[Tensor, "batch height width"]

    @property
    def tiles(self) -> Int64[Tensor, " batch"]:
        """The number of tiles, from 1 to the number of pixels."""
        return self.tile.flatten(1).amax(dim=1) + 1

    @property
    def sizes(self) -> list[Int64[Tensor, " tiles"]]:
        """The number of pixels of every tile, one descending list for each image."""
        return [tile.flatten().bincount() for tile in self.tile]

    @property
    def mean_size(self) -> Float64[Tensor, " batch"]:
        """Pixels per tile."""
        return self._pixels / self.tiles.double()

    @property
    def largest_share(self) -> Float64[Tensor, " batch"]:
        """The share of pixels in the largest tile, in (0, 1]."""
        return (self.tile == 0).double().mean(dim=(1, 2))

    @property
    def images(self) -> Int64[Tensor, " batch"]:
        """How many different training images there are pixels of."""
        return torch.tensor([len(image.unique()) for image in self.image])

    @property
    def main_image(self) -> Int64[Tensor, " batch"]:
        """The training image that most pixels come from; of several, the first."""
        return torch.stack([image.flatten().bincount().argmax() for image in self.image])

    @property
    def main_share(self) -> Float64[Tensor, " batch"]:
        """The share of pixels that come from `main_image`, in (0, 1]."""
        return (self.image == self.main_image[:, None, None]).double().mean(dim=(1, 2))

    @property
    def decided(self) -> Float64[Tensor, " batch"]:
        """The share of pixels whose source has more than half of the posterior, in [0, 1]."""
        return (self.weight > 0.5).double().mean(dim=(1, 2))

    @property
    def _pixels(self) -> int:
        return self.tile[0].numel()

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per image, for a CSV."""
        columns = {
            "tiles": self.tiles,
            "mean_size": self.mean_size,
            "largest": torch.stack([sizes[0] for sizes in self.sizes]),
            "largest_share": self.largest_share,
            "images": self.images,
            "main_image": self.main_image,
            "main_share": self.main_share,
            "decided": self.decided,
        }
        for sample in range(len(self.tile)):
            yield {"sample": sample} | {name: column[sample].item() for name, column in columns.items()}


def mosaic(attribution: Attribution, *, circular: bool, around: tuple[int, ...] | None = None) -> Mosaic:
    """The mosaic of the first sources of an attribution.

    Tiles are connected as they are seen: they do not continue across the border, whatever the machine.

    Args:
        attribution: of a batch of images, each at its one noise level.
        circular: whether source patches wrap around the border (ELS and ES), so that offsets count modulo the image.
        around: (height, width) of the training images, where they are of another size.

    >>> one = torch.ones(1, 2, 2, 1)
    >>> own = torch.tensor([[0, 0], [1, 1]]).reshape(one.shape)
    >>> image, level = torch.tensor([[7, 7], [7, 8]]).reshape(one.shape), torch.tensor([0.5], dtype=torch.float64)
    >>> patch_size = torch.tensor([3])
    >>> source = Attribution(level, patch_size, image, own, own.transpose(1, 2), one, one[..., 0])
    >>> found = mosaic(source, circular=False)
    >>> found.tile.tolist(), found.main_image.tolist(), found.main_share.tolist()
    ([[[0, 0], [0, 1]]], [7], [0.75])
    """
    image, row, column = (tensor[..., 0] for tensor in (attribution.image, attribution.row, attribution.column))
    height, width = image.shape[1:]
    down, right = row - torch.arange(height)[:, None], column - torch.arange(width)
    if circular:
        sides = around or (height, width)
        down, right = (
            (offset + side // 2) % side - side // 2 for offset, side in zip((down, right), sides, strict=True)
        )
    tile = torch.from_numpy(_tiles(torch.stack([image, down, right], dim=-1).numpy()))
    return Mosaic(tile, image, down, right, attribution.weight[..., 0])


def _tiles(source: np.ndarray) -> np.ndarray:
    """The tiles (batch, height, width) of pixels with equal sources (batch, height, width, any), by size."""
    shape = source.shape[:3]
    pixel = np.arange(source[..., 0].size).reshape(shape)
    ends = []
    for one, other in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(None), slice(None), slice(1, None)), (slice(None), slice(None), slice(None, -1))),
    ):
        equal = (source[one] == source[other]).all(axis=-1)
        ends.append(np.stack([pixel[one][equal], pixel[other][equal]]))
    start, end = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(pixel.size, pixel.size))
    region = connected_components(graph, directed=False)[1].reshape(shape)
    tiles = np.empty(shape, dtype=np.int64)
    for found, regions in zip(tiles, region, strict=True):
        _, first, inverse, size = np.unique(regions, return_index=True, return_inverse=True, return_counts=True)
        rank = np.empty(len(size), dtype=np.int64)
        rank[np.lexsort((first, -size))] = np.arange(len(size))
        found[...] = rank[inverse].reshape(regions.shape)
    return tiles


@dataclass(frozen=True)
class Memorisation:
    """How much of each sample is one training image.

    Attributes:
        nearest: (batch,) index in the bank of the training image with the greatest Pearson r; of several, the first.
        pearson_r: (batch,) that r, over all channels and pixels, in [-1, 1]; 0 where either has no variance.
        mosaic: the sample's mosaic in the limit of no noise.
    """

    nearest: Int64[Tensor, " batch"]
    pearson_r: Float64[Tensor, " batch"]
    mosaic: Mosaic

    @property
    def share(self) -> Float64[Tensor, " batch"]:
        """The share of pixels that come from one image, in (0, 1]; 1 for a training image itself."""
        return self.mosaic.main_share

    @property
    def novelty(self) -> Float64[Tensor, " batch"]:
        """The share of pixels that do not come from the image that most of them come from, in [0, 1)."""
        return 1 - self.share

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per sample, for a CSV: `nearest_image`, `pearson_r`, `novelty` and the columns of the mosaic."""
        for row, nearest, r in zip(self.mosaic.rows(), self.nearest.tolist(), self.pearson_r.tolist(), strict=True):
            yield row | {"nearest_image": nearest, "pearson_r": r, "novelty": 1 - row["main_share"]}


@doorway(denoiser="machine", images="samples")
def memorisation(
    machine: Denoiser, samples: Images, labels: Labels | None = None, *, progress: Progress = no_progress
) -> Memorisation:
    """How much of each sample, a machine's or a network's, is one training image.

    The machine attributes the sample at vanishing noise, with the patch size of its lowest noise level: every pixel
    to the nearest patch, as in `consistency.nearest_centres`. The noise level is no choice: at all of them the order of
    patches is the same, since x_t shrinks with sqrt(alpha_bar) as they do. Of equally near patches at the same place,
    that of the nearest training image comes first: otherwise the even background of a memorised image would go to
    whichever image happens to be the first of the bank.

    Args:
        machine: a score machine, whose candidates count, with the whole bank on this process.
        samples: (batch, channel, height, width) in [-1, 1].
        labels: (batch,) int64, used if the machine is conditional: only images of the class count then.
        progress: told the number of images done.

    Raises:
        InputError: as `attribution.attribute`.
    """
    bank = check_attributable(machine)
    labels = bank.select_labels(labels)
    alpha_bar = torch.full((len(samples),), 1 - NOISE_POWER, dtype=torch.float64)
    x_t = add_noise(samples, torch.zeros_like(samples), alpha_bar)
    bank.check_inputs(x_t, alpha_bar, labels)
    nearest, r = nearest_training_image(bank, samples, labels)
    size = None
    if isinstance(bank, PatchMachine):
        size = bank.scales if isinstance(bank.scales, int) else int(bank.scales.patch_size[0])
    found = attribute(bank, x_t, alpha_bar, labels, top=1, patch_size=size, prefer=nearest, progress=progress)
    return Memorisation(nearest, r, mosaic(found, circular=bank.padding_mode == "circular"))


def nearest_training_image(
    machine: ScoreMachine, samples: Images, labels: Labels | None = None
) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
    """The training image with the greatest Pearson r with each sample, and that r; both on the CPU.

    Only images of the sample's label count for a conditional machine. The bank is read in chunks within the machine's
    memory budget. Arguments as in `memorisation`.
    """
    dtype = sum_dtype(samples.device)
    query = _standardised(samples.to(dtype))
    nearest = torch.zeros(len(samples), dtype=torch.int64)
    best = torch.full((len(samples),), -torch.inf, dtype=torch.float64)
    classes = torch.zeros(len(samples), dtype=torch.int64) if labels is None else labels.cpu()
    for label in classes.unique().tolist():
        bank = machine.bank(label)
        group = (classes == label).nonzero()[:, 0]
        start = 0
        for images in bank.of(dtype, 8 * (4 * samples[0].numel() + len(group))):
            r = (query[group.to(query.device)] @ _standardised(images).T).cpu().double()
            r, index = r.clamp(-1, 1).round(decimals=12), torch.arange(start, start + len(images))  # (group, image)
            first = r.argmax(dim=1)  # of equal images the first, though products of matrices differ in the last digit
            greatest = r.gather(1, first[:, None])[:, 0]
            better = greatest > best[group]
            best[group[better]] = greatest[better]
            nearest[group[better]] = bank.members.cpu()[index[first[better]]]
            start += len(images)
    return nearest, best


def _standardised(images: Images) -> Float[Tensor, "batch dim"]:
    """Images without their mean, of length 1; all zero where there is no variance."""
    flat = images.flatten(1)
    varies = flat.amax(dim=1, keepdim=True) > flat.amin(dim=1, keepdim=True)
    return torch.where(varies, normalize(flat - flat.mean(dim=1, keepdim=True), dim=1), 0)


def pasted(found: Mosaic, images: Tensor) -> Tensor:
    """A mosaic put together: every pixel is the training pixel that it is said to be copied from.

    Args:
        found: the mosaic of some images (batch, channel, height, width).
        images: (N, channel, …) the training images that it names.
    """
    height, width = found.tile.shape[1:]
    rows = (torch.arange(height)[:, None] + found.down) % images.shape[2]
    columns = (torch.arange(width) + found.right) % images.shape[3]
    return to_floats(images[found.image, :, rows, columns]).float().movedim(-1, 1)
