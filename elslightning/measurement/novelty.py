"""Novelty: whether a sample is new, or a training image again; and whether it is an image at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from elslightning.diffusion.border import check_patch_size
from elslightning.diffusion.pixels import to_floats
from elslightning.diffusion.shapes import Bank, Images, Labels, Progress, no_progress
from elslightning.machines.boundary_broken import BoundaryBrokenScoreMachine
from elslightning.machines.canvas import Canvas
from elslightning.machines.equivariant_local import EquivariantLocalScoreMachine
from elslightning.measurement.agreement import mean_interval
from elslightning.measurement.canvases import canvas_mosaic
from elslightning.measurement.consistency import HALF_GREY_LEVEL
from elslightning.measurement.fidelity import Classifier
from elslightning.measurement.manifold import Manifold, patches_of
from elslightning.measurement.mosaic import Mosaic, memorisation, pasted
from elslightning.system.errors import InputError

MEMORISED = 1 / 3
"""A sample is memorised whose nearest training image is nearer than this share of the distance to the second."""
BEYOND = 1.05
"""A value greater than this in magnitude is outside of [-1, 1]; a little beyond is how networks end."""
BUDGET = 2**28
"""Bytes of a chunk of training images and the distances to them."""
ENDS = ("mean", "low", "high")
"""A mean and the ends of its interval."""
OF_TRAINING = ("patch_recall", "coverage", "recall")
"""Measures that are averaged over training patches or images, and not over samples."""
PATCHES = 4
"""Patches for each training image of a manifold, in all."""
_NEAREST = 4


def nearest_ratio(samples: Images, images: Bank, *, budget: int = BUDGET) -> Float64[Tensor, " batch"]:
    """The distance of each sample to its nearest training image over that to the second nearest, from 0 to 1.

    Below `MEMORISED` the sample counts as memorised; the share of these is f_mem (Bonnaire et al., arXiv 2505.17638).
    It is 0 for a copy of a training image, even of one that is there twice, and 1 where there is no second image.

    Args:
        samples: (batch, channel, height, width).
        images: (N, channel, height, width), of all classes; floating point in [-1, 1], or bytes. On any device.
        budget: bytes that a chunk of training images and their distances may take.

    Returns:
        (batch,) on the CPU.

    >>> images = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    >>> nearest_ratio(torch.tensor([0.25]).reshape(1, 1, 1, 1).expand(1, 1, 2, 2), images).round(decimals=6).tolist()
    [0.333333]
    """
    if len(images) < 2:
        return (samples.cpu() != to_floats(images.cpu())).flatten(1).any(dim=1).double()
    queries = samples.float().flatten(1)
    chunk = max(2, budget // (4 * (2 * queries.shape[1] + len(queries))))
    best = queries.new_full((len(queries), 0), torch.inf)
    where = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(images), chunk):
        keys = to_floats(images[start : start + chunk]).to(queries).flatten(1)
        # Up to |sample|², which is the same for all; the few nearest are measured exactly below.
        distance = keys.square().sum(dim=1) - 2 * queries @ keys.T
        places = torch.arange(start, start + len(keys), device=queries.device).expand_as(distance)
        best, where = torch.cat([best, distance], dim=1), torch.cat([where, places], dim=1)
        best, chosen = best.topk(min(_NEAREST, best.shape[1]), dim=1, largest=False)
        where = where.gather(1, chosen)
    found = []
    for sample, places in zip(samples.double().flatten(1).cpu(), where.to(images.device), strict=True):
        near = to_floats(images[places]).cpu().double().flatten(1)
        found.append((near - sample).norm(dim=1).sort().values[:2])
    first, second = torch.stack(found, dim=1)
    return torch.where(first == 0, 0.0, first / second)


def outside(samples: Images) -> Float64[Tensor, " batch"]:
    """The share of each sample's values that lie outside of [-1, 1], see `BEYOND`; one that is no number does too."""
    return (~(samples.abs() <= BEYOND)).flatten(1).cpu().double().mean(dim=1)


@dataclass(frozen=True)
class Novelty:
    """How new some samples are, and how much they are like the training images.

    Attributes:
        values: by measure, a number for each unit that it is averaged over: (samples,) for most; (training patches,)
            for `patch_recall`, (training images,) for `coverage` and `recall`. What does not apply is missing: of
            samples of another size than the training images all but what patches say, without labels `fidelity`.
        nearest: (samples,) index of the training image with the greatest Pearson r; empty for another size.
        mosaic: of the samples.

    The measures, each from 0 to 1 unless said otherwise:
        memorised: whether the nearest training image is nearer than a third of the distance to the second.
        nearest_r: Pearson r with the training image that has the greatest, from -1 to 1.
        novelty: share of pixels that do not come from the image that most of them come from.
        tiles, images: of the mosaic, at least 1: its pieces, and the training images that they come from.
        consistency: share of pixels that are, to half a grey level, the centre of the nearest training patch.
        patch_precision: share of patches inside the manifold of the training patches.
        patch_recall: share of training patches inside the manifold of the samples' patches.
        precision, recall, density (at least 0), coverage: of whole images; see `manifold.Manifold`.
        diversity: squared distance from the samples' mean over that of training images from theirs, at least 0.
        fidelity: probability of the sample's label, or of the likeliest class, by a small classifier.
        outside: share of values beyond [-1, 1].
    """

    values: dict[str, Float64[Tensor, " units"]]
    nearest: Int64[Tensor, " samples"]
    mosaic: Mosaic

    def summary(self) -> dict[str, dict[str, float]]:
        """The mean of every measure with its 95 % bootstrap interval: `mean`, `low`, `high`."""
        return {name: dict(entry) for name, entry in self._intervals.items()}

    @cached_property
    def _intervals(self) -> dict[str, dict[str, float]]:
        return {name: dict(zip(ENDS, mean_interval(values), strict=True)) for name, values in self.values.items()}

    def rows(self) -> Iterator[dict[str, float]]:
        """A row per sample, for a CSV, with all that is measured sample by sample."""
        count = len(self.mosaic.tile)
        columns = {name: values for name, values in self.values.items() if name not in OF_TRAINING}
        for sample in range(count):
            known = {"nearest_image": self.nearest[sample].item()} if len(self.nearest) else {}
            yield {"sample": sample} | known | {name: column[sample].item() for name, column in columns.items()}


class Reference:
    """What samples are held against: training images, the manifolds of their patches and of themselves, a classifier.

    Args:
        images: (N, channel, height, width), at least 2; floating point in [-1, 1], or bytes.
        labels: (N,) int64 or None; given, a classifier is trained.
        label: of the class whose images alone samples are held against; all others are for the classifier, and
            fidelity is how sure it is of this class. None takes all images.
        patch_size: of the patches that are measured, and that mosaics are made of; odd, at most the shorter side. None
            takes about half of it, and 9 at most.
        neighbours: k of the manifolds; fewer where there are not so many images.
        most: training images that the manifolds are made of, spread over all, and a quarter of the number of their
            patches; it sets how large the balls are, so it is the same for all that is compared.
        circular: whether mosaics wrap around the border: of ELS and networks with circular padding.
        seed: chooses the patches.

    Raises:
        InputError: for fewer than 2 images, of the class if there is one, and a patch size that is even or larger than
            the images.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        label: int | None = None,
        patch_size: int | None = None,
        neighbours: int = 5,
        most: int = 1000,
        circular: bool = False,
        seed: int = 0,
    ) -> None:
        images, known = images.cpu(), images.cpu()
        if label is not None:
            images = images[torch.zeros(len(images), dtype=torch.bool) if labels is None else labels.cpu() == label]
        if len(images) < 2:
            raise InputError(f"novelty is measured against at least 2 training images, not {len(images)}")
        side = min(images.shape[2:])
        self.patch_size = min(9, side // 2 | 1) if patch_size is None else patch_size
        check_patch_size(self.patch_size)
        if self.patch_size > side:
            raise InputError(f"patches of {self.patch_size} pixels do not fit into images of {side}")
        self.images, self.label, self.seed = images, label, seed
        self.neighbours = min(neighbours, len(images) - 1)
        self._shown = to_floats(self.images[self._spread(min(most, len(images)))]).float()
        self._machine = (EquivariantLocalScoreMachine if circular else BoundaryBrokenScoreMachine)(
            self.images, scales=self.patch_size
        )
        self._most = PATCHES * most
        self._patches = self._some_patches(self._shown, 1).flatten(0, 1)
        self._of_patches = Manifold.of(self._patches, self.neighbours, distinct=True)
        self._of_images = Manifold.of(self._shown.flatten(1), self.neighbours)
        self._classifier: Classifier | None = None
        if labels is not None:
            count = max(2, len(known) // int(labels.max() + 1))
            nothing = torch.cat([self.shuffled(count // 2, seed + 1), self.noise(count - count // 2, seed + 1)])
            self._classifier = Classifier(known, labels, nothing, seed=seed)

    def shuffled(self, count: int, seed: int = 0) -> Images:
        """Control: mosaics of square pieces from anywhere in the training images, (count, channel, height, width)."""
        generator = torch.Generator().manual_seed(seed)
        _, channels, height, width = self.images.shape
        size = self.patch_size
        down, across = -(-height // size), -(-width // size)
        chosen = torch.randint(len(self.images), (count * down * across,), generator=generator)
        pieces = patches_of(to_floats(self.images[chosen]).float(), size, 1, generator)
        pieces = pieces.reshape(count, down, across, channels, size, size).permute(0, 3, 1, 4, 2, 5)
        return pieces.reshape(count, channels, down * size, across * size)[..., :height, :width].contiguous()

    def noise(self, count: int, seed: int = 0) -> Images:
        """Control: standard normal values, clipped to [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((count, *self.images.shape[1:]), generator=generator).clamp(-1, 1)

    def controls(self, heldout: Bank, count: int) -> dict[str, Images]:
        """The images that every measure is held against, at most `count` of each: training images, held-out images,
        shuffled patches, noise."""
        return {
            "training images": to_floats(self.images[self._spread(min(count, len(self.images)))]).float(),
            "held-out images": to_floats(heldout[:count].cpu()).float(),
            "shuffled patches": self.shuffled(count, self.seed),
            "noise": self.noise(count, self.seed),
        }

    def measure(self, samples: Images, labels: Labels | None = None, *, progress: Progress = no_progress) -> Novelty:
        """Measures samples of any denoiser.

        Args:
            samples: (batch, channel, height, width) in [-1, 1], of any size that is no smaller than the patches.
            labels: (batch,) int64, what they are samples of, if that is known; by default the reference's `label`.
            progress: told the number of samples attributed.

        Raises:
            InputError: for samples of other channels, or smaller than the patches.
        """
        samples = samples.float().cpu()
        if labels is None and self.label is not None:
            labels = torch.full((len(samples),), self.label)
        if samples.shape[1] != self.images.shape[1] or min(samples.shape[2:]) < self.patch_size:
            raise InputError(
                f"samples of {tuple(samples.shape[1:])} cannot be held against training images of "
                f"{tuple(self.images.shape[1:])} in patches of {self.patch_size}"
            )
        values: dict[str, Tensor] = {}
        nearest = torch.zeros(0, dtype=torch.int64)
        if samples.shape[1:] == self.images.shape[1:]:
            known = memorisation(self._machine, samples, progress=progress)
            found, nearest = known.mosaic, known.nearest
            values["memorised"] = (nearest_ratio(samples, self.images) < MEMORISED).double()
            values["nearest_r"] = known.pearson_r
        else:
            found = canvas_mosaic(Canvas(self._machine), samples, progress=progress)
        values |= {"novelty": 1 - found.main_share, "tiles": found.tiles.double(), "images": found.images.double()}
        values["consistency"] = _consistent(samples, found, self.images)
        values |= self._by_patches(samples)
        if len(nearest):
            values |= self._by_images(samples)
            if self._classifier is not None:
                values["fidelity"] = self._classifier.fidelity(samples, labels)
        values["outside"] = outside(samples)
        return Novelty(values, nearest, found)

    def _spread(self, count: int) -> Tensor:
        """The indices of so many training images, evenly spread over all."""
        return torch.linspace(0, len(self.images) - 1, count).round().long()

    def _some_patches(self, images: Images, least: int) -> Tensor:
        """About `_most` patches of some images in all, but at least so many of each: (images, patches, dim)."""
        generator = torch.Generator().manual_seed(self.seed)
        return patches_of(images, self.patch_size, max(least, -(-self._most // len(images))), generator)

    def _by_patches(self, samples: Images) -> dict[str, Tensor]:
        patches = self._some_patches(samples, 16)
        inside = self._of_patches.holds(patches.flatten(0, 1)).double().reshape(patches.shape[:2])
        own = patches.flatten(0, 1)
        own = own[:: -(-len(own) // (2 * self._most))].unique(dim=0)
        reached = torch.zeros(len(self._patches))
        if len(own) > self.neighbours:
            reached = Manifold.of(own, self.neighbours).holds(self._patches)
        return {"patch_precision": inside.mean(dim=1), "patch_recall": reached.double()}

    def _by_images(self, samples: Images) -> dict[str, Tensor]:
        points, training = samples.flatten(1), self._of_images.points
        count = self._of_images.count(points).double()
        values = {
            "precision": (count > 0).double(),
            "density": count / self.neighbours,
            "coverage": self._of_images.reached(points).double(),
        }
        if len(points) > self.neighbours:
            values["recall"] = Manifold.of(points, self.neighbours).holds(training).double()
        variance = training.double().var(dim=0).sum()
        if len(points) > 1 and variance > 0:
            centred = (points.double() - points.double().mean(dim=0)).square().sum(dim=1)
            values["diversity"] = centred * len(points) / (len(points) - 1) / variance
        return values


def _consistent(samples: Images, found: Mosaic, images: Tensor) -> Float64[Tensor, " batch"]:
    """The share of pixels that are, to half a grey level, the training pixel that the mosaic names."""
    distance = (samples - pasted(found, images)).abs().amax(dim=1)
    return (distance <= HALF_GREY_LEVEL).double().mean(dim=(1, 2))
