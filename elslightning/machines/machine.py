"""ScoreMachine: what the analytic machines share: the bank, labels, chunks, and patch sizes per noise level."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elslightning.boundary import check_patch_size, pad
from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.machines.kernels import (
    LogWeight,
    attend,
    empty_partial,
    full_precision,
    posterior_mean,
    working_dtype,
)
from elslightning.scales import ScaleTable
from elslightning.shapes import AlphaBar, Bank, Images, Labels

# Log-weights held at once: 2 MiB in float32, which stays in a core's cache.
_BLOCK = 2**19
# Numbers in the patches of one chunk of training images.
_CHUNK = 2**22


class ScoreMachine(Denoiser):
    """The posterior mean of an empirical distribution of images, under a constraint that a subclass states.

    A machine has no parameters; its images are non-persistent buffers.

    Args:
        images: (N, channel, height, width), the training set; floating point in [-1, 1], or bytes, where
            0 … 255 stands for -1 … 1 and only the chunk in use is converted.
        labels: (N,) int64; given, the machine is class-conditional: an image with label y sees only the
            training images of class y.

    Raises:
        InputError: for an empty bank, pixels that are not finite, or labels that do not match.
    """

    images: Tensor
    labels: Tensor | None

    def __init__(self, images: Bank, labels: Labels | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if images.ndim != 4 or 0 in images.shape:
            raise InputError(
                f"{name} needs images of shape (N, channel, height, width), none of them 0, not {tuple(images.shape)}"
            )
        if labels is not None and labels.shape != images.shape[:1]:
            raise InputError(f"{name} got {len(images)} images and {len(labels)} labels")
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            raise InputError(f"the images of {name} contain a pixel that is not finite")
        self.register_buffer("images", images, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self.conditional = labels is not None
        self.image_shape = tuple(images.shape[1:])  # type: ignore[assignment]

    @torch.no_grad()
    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean of the machine; arguments and errors as in `Denoiser.forward`.

        Raises:
            InputError: also for a label with no training image.
        """
        self.check_inputs(x_t, alpha_bar, labels)
        return self._evaluate(x_t, alpha_bar, labels, self.patch_size_at(alpha_bar))

    @abstractmethod
    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        """The patch size (batch,) that the machine uses at each noise level; 0 where it has none."""

    @abstractmethod
    def _posterior_mean(self, x_t: Images, alpha_bar: AlphaBar, members: Tensor, patch_size: int) -> Images:
        """The posterior mean over the training images `members` (indices), one patch size for all images."""

    def _evaluate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Images:
        """Images of the same label and patch size together: they share their candidates."""
        result = torch.empty_like(x_t)
        classes = torch.zeros(len(x_t), dtype=torch.int64) if labels is None else labels.cpu()
        keys = torch.stack([classes, patch_sizes.cpu()], dim=1)  # (batch, 2)
        with full_precision(x_t.device):
            for label, patch_size in keys.unique(dim=0).tolist():
                rows = (keys == torch.tensor([label, patch_size])).all(dim=1).nonzero()[:, 0]
                members = self._members(label if self.conditional else None)
                where = rows.to(x_t.device)
                result[where] = self._posterior_mean(x_t[where], alpha_bar.cpu()[rows], members, patch_size)
        return result

    def _members(self, label: int | None) -> Tensor:
        """Indices of the training images that count for a label."""
        if self.labels is None or label is None:
            return torch.arange(len(self.images), device=self.images.device)
        members = (self.labels == label).nonzero()[:, 0]
        if len(members) == 0:
            raise InputError(f"{type(self).__name__} has no training image with label {label}")
        return members

    def _chunks(self, members: Tensor, numbers_per_image: int, dtype: torch.dtype) -> Iterator[Tensor]:
        """The training images `members`, in [-1, 1], as many at a time as `numbers_per_image` allows."""
        for chunk in members.split(max(1, _CHUNK // numbers_per_image)):
            images = self.images[chunk]
            yield images.to(dtype) / 127.5 - 1 if images.dtype == torch.uint8 else images.to(dtype)


@dataclass(frozen=True)
class Region:
    """Output pixels that find their candidates alike: the product of some rows and some columns.

    A pixel's candidates are centred in all rows of the region, or in its own row only; columns likewise.
    """

    rows: Tensor
    columns: Tensor
    pool_rows: bool
    pool_columns: bool

    def patches(self, padded: Tensor, patch_size: int) -> Tensor:
        """The patches of padded images around the region's pixels: (group, image, pixel of the group, dim).

        Pixels that share their candidates form a group.
        """
        windows = padded.unfold(2, patch_size, 1).unfold(3, patch_size, 1)
        windows = windows.index_select(2, self.rows).index_select(3, self.columns)
        # (image, channel, row, column, y, x)
        groups = [dim for dim, pooled in ((2, self.pool_rows), (3, self.pool_columns)) if not pooled]
        pooled = [dim for dim, pooled in ((2, self.pool_rows), (3, self.pool_columns)) if pooled]
        count = self.group_count
        return windows.permute(*groups, 0, *pooled, 1, 4, 5).reshape(
            count, len(padded), self.group_size, padded.shape[1] * patch_size**2
        )

    @property
    def group_count(self) -> int:
        return (1 if self.pool_rows else len(self.rows)) * (1 if self.pool_columns else len(self.columns))

    @property
    def group_size(self) -> int:
        return len(self.rows) * len(self.columns) // self.group_count

    def place(self, values: Tensor) -> Tensor:
        """Values (group, image, pixel of the group, channel) as (image, channel, row, column)."""
        _, images, _, channels = values.shape
        if self.pool_rows and not self.pool_columns:  # groups are columns
            values = values.reshape(len(self.columns), images, len(self.rows), channels).permute(1, 3, 2, 0)
        else:
            rows = 1 if self.pool_rows else len(self.rows)
            columns = 1 if self.pool_columns else len(self.columns)
            values = values.reshape(
                rows, columns, images, len(self.rows) // rows, len(self.columns) // columns, channels
            ).permute(2, 5, 0, 3, 1, 4)
        return values.reshape(images, channels, len(self.rows), len(self.columns))


class PatchMachine(ScoreMachine):
    """A machine that sees P×P patches and paints each pixel with the centres of training patches.

    Args:
        images, labels: as in `ScoreMachine`.
        scales: the patch size: one odd integer for all noise levels, or a `ScaleTable`.

    Raises:
        InputError: also for a patch size that is even, not positive, or too large to wrap around an image.
    """

    padding_mode: str = "zeros"

    def __init__(self, images: Bank, labels: Labels | None = None, *, scales: int | ScaleTable) -> None:
        super().__init__(images, labels)
        self.scales = scales
        for size in [scales] if isinstance(scales, int) else scales.patch_size.unique().tolist():
            self.check_patch_size(size)

    def check_patch_size(self, patch_size: int) -> None:
        """Raises InputError unless the machine can use this patch size on its images."""
        check_patch_size(patch_size)
        side = min(self.images.shape[2:])
        if self.padding_mode == "circular" and patch_size > side:
            raise InputError(
                f"patch size {patch_size} is too large: on images of {self.images.shape[2]} x "
                f"{self.images.shape[3]} pixels {type(self).__name__} wraps patches of at most {side}"
            )

    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        if isinstance(self.scales, int):
            return torch.full(alpha_bar.shape, self.scales)
        return self.scales.at(alpha_bar)

    @torch.no_grad()
    def sweep(
        self, x_t: Images, alpha_bar: AlphaBar, patch_sizes: Sequence[int], labels: Labels | None = None
    ) -> Tensor:
        """The posterior mean with each patch size instead of the machine's own.

        Args:
            x_t, alpha_bar, labels: as in `forward`.
            patch_sizes: odd, positive.

        Returns:
            (len(patch_sizes), batch, channel, height, width).

        Raises:
            InputError: as `forward`, and for a patch size the machine cannot use.
        """
        self.check_inputs(x_t, alpha_bar, labels)
        for size in patch_sizes:
            self.check_patch_size(size)
        sizes = [torch.full(alpha_bar.shape, size) for size in patch_sizes]
        return torch.stack([self._evaluate(x_t, alpha_bar, labels, size) for size in sizes])

    @abstractmethod
    def _regions(self, patch_size: int) -> list[Region]:
        """A partition of the image by how pixels find their candidates."""

    def _posterior_mean(self, x_t: Images, alpha_bar: AlphaBar, members: Tensor, patch_size: int) -> Images:
        radius, batch, channels = patch_size // 2, *x_t.shape[:2]
        dim = channels * patch_size**2
        result = torch.empty_like(x_t)
        dtype = working_dtype(x_t, float(alpha_bar.max()), dim)
        padded = pad(x_t.to(dtype), radius, self.padding_mode)
        for region in self._regions(patch_size):
            groups, size = region.group_count, region.group_size
            query = region.patches(padded, patch_size).flatten(1, 2)  # (group, batch · pixel, dim)
            coefficients = LogWeight.of(alpha_bar, size, query)
            partial = empty_partial(groups, batch * size, channels, x_t)
            for images in self._chunks(members, groups * size * dim, dtype):
                key = region.patches(pad(images, radius, self.padding_mode), patch_size).flatten(1, 2)
                centre = key.unflatten(2, (channels, patch_size, patch_size))[..., radius, radius]
                partial = attend(partial, query, key, centre.to(x_t.dtype), coefficients, _BLOCK)
            mean = posterior_mean(partial).unflatten(1, (batch, size))
            result[:, :, region.rows[:, None], region.columns] = region.place(mean)
        return result
