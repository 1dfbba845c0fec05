"""PatchMachine: what the machines that see patches share: patch sizes, regions, and the two ways to compute."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.border import check_patch_size, interior, pad
from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks, accumulate, no_candidates
from elslightning.machines.compiled import (
    FAINTEST_COMPILED,
    LARGEST_COMPILED,
    axis,
    candidate_sums,
    image_bytes,
    workspace_bytes,
)
from elslightning.machines.compiling import COMPILING
from elslightning.machines.kernels import (
    LogWeight,
    Partial,
    attend,
    attention_block,
    empty_partial,
    merge,
    working_dtype,
)
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.parameters import PATCH_SIZE, Parameter, ParameterTable
from elslightning.system.errors import InputError


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
        """Values (group, image, pixel of the group, …) as (image, row, column, …)."""
        images, rest = values.shape[1], values.shape[3:]
        rows = 1 if self.pool_rows else len(self.rows)
        columns = 1 if self.pool_columns else len(self.columns)
        values = values.reshape(
            rows, columns, images, len(self.rows) // rows, len(self.columns) // columns, *rest
        )  # (row group, column group, image, row in group, column in group, …)
        values = values.movedim((2, 0, 3, 1, 4), (0, 1, 2, 3, 4))
        return values.reshape(images, len(self.rows), len(self.columns), *rest)


class PatchMachine(ScoreMachine):
    """A machine that sees P×P patches and paints each pixel with the centres of training patches.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        scales: the patch size: one odd integer for all noise levels, or a `ScaleTable`, of which
            columns of parameters that are not free in the machine are left aside.

    Raises:
        InputError: also for a patch size that is even, not positive, or too large to wrap around an image.
    """

    padding_mode: ClassVar[str] = "zeros"
    """What a patch sees beyond the border: "zeros" or "circular"."""
    pooled: ClassVar[bool] = False
    """Whether a pixel's candidates lie at all locations that see the border alike, or only at its own."""
    free: ClassVar[tuple[str, ...]] = (PATCH_SIZE,)
    attributable: ClassVar[bool] = True
    compiled: ClassVar[bool] = True
    """Whether float32 on a CPU takes the compiled loops; the torch path gives the same numbers."""

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        self.scales = scales
        for size in Parameter(PATCH_SIZE, scales).values:
            self.check_patch_size(int(size))

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
        return self._parameter_at(PATCH_SIZE, alpha_bar)

    def _check_parameter(self, name: str, value: float) -> None:
        super()._check_parameter(name, value)
        if name == PATCH_SIZE:
            self.check_patch_size(int(value))

    @torch.no_grad()
    def sweep_settings(
        self,
        x_t: Images,
        alpha_bar: AlphaBar,
        settings: Sequence[Mapping[str, float]],
        labels: Labels | None = None,
    ) -> Tensor:
        """As in `ScoreMachine.sweep_settings`, in one pass over the training images."""
        self.check_inputs(x_t, alpha_bar, labels)
        values = [machine._setting_at(alpha_bar) for machine in self._machines(settings)]
        return self._evaluate(x_t, alpha_bar, labels, torch.stack(values, dim=1))

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
        return self.sweep_settings(x_t, alpha_bar, [{PATCH_SIZE: size} for size in patch_sizes], labels)

    def _uses_compiled(self, x_t: Images) -> bool:
        if not (self.compiled and COMPILING) or x_t.device.type != "cpu" or x_t.dtype != torch.float32:
            return False
        return float(x_t.abs().max()) <= LARGEST_COMPILED

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        _, channels, height, width = x_t.shape
        if self._uses_compiled(x_t):
            return image_bytes(channels, height, width, len(patch_sizes))
        # Its patches while they are taken and multiplied, and the running sums, all in float64 at worst.
        dim = channels * max(patch_sizes) ** 2
        return 8 * height * width * (3 * dim + 4 * (channels + 2) * len(patch_sizes))

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        if self._uses_compiled(x_t) and float(alpha_bar.min()) >= FAINTEST_COMPILED:
            return self._compiled_partials(x_t, alpha_bar, chunks, patch_sizes)
        return [
            accumulate(no_candidates(x_t), self._torch_partials(x_t, alpha_bar, chunks.turn(k, len(patch_sizes)), size))
            for k, size in enumerate(patch_sizes)
        ]

    def _compiled_partials(
        self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]
    ) -> list[Partial]:
        """All patch sizes in one pass: they share the squared differences, and each grows its sums from the last."""
        order = sorted(set(patch_sizes))
        rows, columns = (
            axis(length, [size // 2 for size in order], pooled=self.pooled, padding_mode=self.padding_mode)
            for length in x_t.shape[2:]
        )
        threads = torch.get_num_threads()
        channels, height, width = x_t.shape[1:]
        spare = threads * workspace_bytes(channels, height, width, order)
        found = [no_candidates(x_t)] * len(order)
        for images in chunks.of(torch.float32, 3 * 4 * x_t[0].numel(), spare):
            new = candidate_sums(x_t, alpha_bar, images, rows, columns, order, threads)
            found = [merge(a, b) for a, b in zip(found, new, strict=True)]
        return [found[order.index(size)] for size in patch_sizes]

    def _torch_partials(
        self,
        x_t: Images,
        alpha_bar: AlphaBar,
        chunks: Chunks,
        patch_size: int,
        window: Tensor | None = None,
        *,
        whole: bool = False,
    ) -> Iterator[Partial]:
        """The averages of centres, or of patches if `whole`, over chunks of training images.

        Args:
            window: (patch_size, patch_size) how much each pixel of a patch counts in the distance; None: all alike.
        """
        batch, channels, height, width = x_t.shape
        radius, dim = patch_size // 2, channels * patch_size**2
        dtype = working_dtype(x_t, float(alpha_bar.max()), dim)
        padded = pad(x_t.to(dtype), radius, self.padding_mode)
        regions = self._regions(patch_size)
        queries = [region.patches(padded, patch_size).flatten(1, 2) for region in regions]
        root = None if window is None else window.sqrt().flatten().repeat(channels).to(padded)
        if root is not None:
            queries = [query * root for query in queries]
        block = attention_block(x_t.device, chunks.budget // 4)
        # A training image's patches while they are taken, in the working precision.
        each = dtype.itemsize * (4 + (root is not None) + whole) * height * width * dim
        for images in chunks.of(dtype, each, chunks.budget // 4):
            result = empty_partial((batch, height, width), dim if whole else channels, x_t.device)
            for region, query in zip(regions, queries, strict=True):  # query: (group, batch · pixel, dim)
                key = region.patches(pad(images, radius, self.padding_mode), patch_size).flatten(1, 2)
                centre = key.unflatten(2, (channels, patch_size, patch_size))[..., radius, radius]
                size = region.group_size
                value = (key if whole else centre).to(x_t.dtype)
                key = key if root is None else key * root
                start = empty_partial(tuple(query.shape[:2]), value.shape[2], x_t.device)
                found = attend(start, query, key, value, LogWeight.of(alpha_bar, size, query), block)
                where = (slice(None), region.rows[:, None], region.columns)
                for into, part in zip(result, found, strict=True):
                    into[where] = region.place(part.unflatten(1, (batch, size)))
            yield result

    def _regions(self, patch_size: int) -> list[Region]:
        """A partition of the image by how pixels find their candidates."""
        height, width = self.images.shape[2:]
        return [
            Region(rows, columns, pool_rows, pool_columns)
            for rows, pool_rows in self._axis(height, patch_size // 2)
            for columns, pool_columns in self._axis(width, patch_size // 2)
        ]

    def _axis(self, length: int, radius: int) -> list[tuple[Tensor, bool]]:
        """The indices of an axis that share their candidates, and those that have their own; if there are any."""
        indices = torch.arange(length, device=self.images.device)
        if not self.pooled:
            shared = indices[:0]
        elif self.padding_mode == "circular":
            shared = indices
        else:
            shared = indices[interior(length, radius)]
        own = indices[~torch.isin(indices, shared)]
        return [(part, pooled) for part, pooled in ((shared, True), (own, False)) if len(part)]
