"""SoftPatchMachine: patch machines whose windows fade, and whose locations respond with more than their centre."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks, accumulate
from elslightning.machines.compiled import FAINTEST_COMPILED
from elslightning.machines.kernels import Partial, empty_partial, merge, posterior_mean
from elslightning.machines.parameters import PATCH_SIZE, Given, Parameter, ParameterTable
from elslightning.machines.patches import PatchMachine
from elslightning.machines.soft_compiled import SoftSums, Window, soft_image_bytes, soft_workspace_bytes
from elslightning.machines.windows import GradientWindows, gaussian
from elslightning.system.keeping import Part

SOFTNESS, RESPONSE = "softness", "response"


def square(taps: Tensor) -> Tensor:
    """The window (P, P) of these weights along either axis."""
    side = torch.cat([taps.flip(0), taps[1:]])
    return side[:, None] * side[None, :]


def painted(
    patches: Float[Tensor, "n height width channel side side"], response: Float[Tensor, "side side"], padding_mode: str
) -> Float[Tensor, "n channel height width"]:
    """The average at each pixel of the patches that lie over it, each pixel of a patch weighted by the response.

    What a patch holds beyond the border is dropped, or, if `padding_mode` is "circular", goes around it.
    """
    height, width, size = patches.shape[1], patches.shape[2], patches.shape[4]

    def laid(patches: Tensor) -> Tensor:
        columns = (patches * response).permute(0, 3, 4, 5, 1, 2)  # (image, channel, y, x, row, column)
        columns = columns.reshape(len(patches), -1, height * width)
        sums = F.fold(columns, (height + size - 1, width + size - 1), (size, size))
        for dim, length in ((2, height), (3, width)):
            if padding_mode == "circular":
                home = torch.arange(-(size // 2), length + size // 2, device=sums.device) % length
                shape = [*sums.shape[:dim], length, *sums.shape[dim + 1 :]]
                sums = sums.new_zeros(shape).index_add_(dim, home, sums)
            else:
                sums = sums.narrow(dim, size // 2, length)
        return sums

    return laid(patches) / laid(torch.ones_like(patches[:1, :, :, :1]))


class SoftPatchMachine(PatchMachine):
    """A patch machine whose window fades away from its centre, and whose locations paint what is around them.

    Every location l of the image has a posterior over its candidates c, the patches that the hard machine of this name
    may copy from, with a precision that falls with the distance Δ from the centre, and so a posterior mean patch:

        m_l = Σ_c w_c c ,   w = softmax_c( -Σ_Δ q(Δ) (x_t(l + Δ) - sqrt(alpha_bar) c(Δ))² / (2 (1 - alpha_bar)) )

    with q(Δ) = exp(-Δ² / (2 softness²)), cut at P×P; at the centre q is 1. The posterior mean is the average of what
    the locations of the image say of a pixel u, each as far as it responds, cut at P×P likewise:

        x0_hat(u) = Σ_l g(u - l) m_l(u - l) / Σ_l g(u - l) ,   g(Δ) = exp(-Δ² / (2 response²))

    What a patch holds beyond the border is dropped; around a circular one it wraps. An infinite softness and a response
    of 0 are the hard machine (Kamb & Ganguli, eqs. 7-10 and 41). Of the axes of Niedoba (arXiv 2605.24192), precision,
    response and source, the first two are soft here. With `windows`, q is a network's gradients instead, see
    `GradientWindows`.

    With responses the mean patch of every pixel is held while an image is worked on, but for float32 on a CPU; with a
    process group, for all images of a call.

    Args:
        images, labels, memory_budget, process_group, own_images: as in `ScoreMachine`.
        scales: the patch size P that windows and responses are cut at: an odd integer, or a `ScaleTable`.
        softness: standard deviation of the window in pixels, positive; infinite for a hard box. A number, or a table
            with a column `softness`; None takes that of `scales` if it has one, otherwise a hard box; with
            `windows` 1.
        response: standard deviation of the response in pixels, at least 0; 0 for the centre only. Likewise, a number, a
            table, or None for the column of `scales` if it has one, otherwise 0.
        windows: those of a network's gradients, or the path of a run's receptive_field.npz. A softness of 1 then takes
            them as they are, a greater one makes them wider.

    Raises:
        InputError: also for a patch size as in `PatchMachine`, a softness or a response outside its range, and for
            `windows` as in `GradientWindows`.
    """

    free: ClassVar[tuple[str, ...]] = (PATCH_SIZE, SOFTNESS, RESPONSE)
    attributable: ClassVar[bool] = False

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
        softness: Given | None = None,
        response: Given | None = None,
        windows: GradientWindows | str | Path | None = None,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images,
            labels,
            scales=scales,
            memory_budget=memory_budget,
            process_group=process_group,
            own_images=own_images,
        )

        def given(name: str, value: Given | None, otherwise: float) -> Given:
            column = isinstance(scales, ParameterTable) and name in scales.columns
            chosen = value if value is not None else scales if column else otherwise
            return Parameter(name, chosen).given

        self.softness = given(SOFTNESS, softness, math.inf if windows is None else 1.0)
        self.response = given(RESPONSE, response, 0.0)
        self.windows = GradientWindows.read(windows) if isinstance(windows, str | Path) else windows

    def _options(self) -> Sequence[Part]:
        return [] if self.windows is None else [f"windows {self.windows.to_dict()}"]

    def _setting_at(self, alpha_bar: AlphaBar) -> Tensor:
        place = torch.zeros(len(alpha_bar), dtype=torch.float64)
        if self.windows is not None:
            place = self.windows.place_at(alpha_bar)
        return torch.stack([*(self._parameter_at(name, alpha_bar).double() for name in self.free), place], dim=1)

    def _of(self, setting: Sequence[float]) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
        """The radius, the window and the response of a setting; the response (1,) where it is the centre only."""
        size, softness, response, place = setting
        radius = int(size) // 2
        taps = gaussian(softness, radius) if self.windows is None else self.windows.taps(int(place), softness, radius)
        return radius, tuple(taps.tolist()), tuple(gaussian(response, radius if response > 0 else 0).tolist())

    def _windows(self, settings: Sequence[Any]) -> list[Window]:
        """The distinct windows of some settings, with the distinct responses of each."""
        found: dict[tuple[int, tuple[float, ...]], set[tuple[float, ...]]] = {}
        for setting in settings:
            radius, taps, response = self._of(setting)
            found.setdefault((radius, taps), set()).add(response)
        return [
            Window(radius, taps, (1.0,) in responses, tuple(sorted(one for one in responses if len(one) > 1)))
            for (radius, taps), responses in sorted(found.items())
        ]

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[Any]) -> int:
        _, channels, height, width = x_t.shape
        if self._uses_compiled(x_t) and not (self.process_group and any(response for _, _, response, _ in patch_sizes)):
            windows = self._windows(patch_sizes)
            count = sum(len(window.responses) for window in windows)
            return soft_image_bytes(channels, height, width, len(windows), count)
        # As in the hard machines, and mean patches: of a chunk, of those before, merged, painted, and copies of them.
        dim = channels * int(max(size for size, *_ in patch_sizes)) ** 2
        patches = 10 * dim if any(response > 0 for _, _, response, _ in patch_sizes) else 0
        return 8 * height * width * (3 * dim + patches + 4 * (channels + 2) * len(patch_sizes))

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[Any]) -> list[Partial]:
        compiled = self._uses_compiled(x_t) and float(alpha_bar.min()) >= FAINTEST_COMPILED
        if compiled and not (self.process_group and any(response > 0 for _, _, response, _ in patch_sizes)):
            return self._compiled_partials(x_t, alpha_bar, chunks, patch_sizes)
        return [
            self._one_partial(x_t, alpha_bar, chunks.turn(k, len(patch_sizes)), setting)
            for k, setting in enumerate(patch_sizes)
        ]

    def _one_partial(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, setting: Sequence[float]) -> Partial:
        size, response = int(setting[0]), setting[2]
        window = square(torch.tensor(self._of(setting)[1], dtype=torch.float64))
        values = x_t.shape[1] * (size**2 if response > 0 else 1)
        start = empty_partial((len(x_t), *x_t.shape[2:]), values, x_t.device)
        parts = self._torch_partials(x_t, alpha_bar, chunks, size, window, whole=response > 0)
        found = accumulate(start, parts)
        return found if self.process_group is not None else _sure(self._image_mean(found, x_t, setting))

    def _image_mean(self, partial: Partial, x_t: Images, setting: Sequence[float]) -> Tensor:
        mean, channels = posterior_mean(partial), x_t.shape[1]
        size, response = int(setting[0]), setting[2]
        if mean.shape[-1] == channels:
            return mean.permute(0, 3, 1, 2)
        patches = mean.unflatten(3, (channels, size, size))
        return painted(patches, square(gaussian(response, size // 2)).to(patches), self.padding_mode)

    def _compiled_partials(
        self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[Any]
    ) -> list[Partial]:
        """All settings together: they share the squared differences, those of equal windows also the weights."""
        if all(math.isinf(softness) and response == 0 for _, softness, response, _ in patch_sizes):
            return super()._compiled_partials(x_t, alpha_bar, chunks, [int(size) for size, *_ in patch_sizes])
        windows = self._windows(patch_sizes)
        threads = torch.get_num_threads()
        channels, height, width = x_t.shape[1:]
        sums = SoftSums(x_t, alpha_bar, windows, pooled=self.pooled, padding_mode=self.padding_mode, threads=threads)
        spare = threads * soft_workspace_bytes(channels, height, width, windows)
        each, passes = 3 * 4 * x_t[0].numel(), 1 + any(window.responses for window in windows)
        start = empty_partial((len(x_t), height, width), channels, x_t.device)
        averages = [start] * len(windows)
        for images in chunks.turn(0, passes).of(torch.float32, each, spare):
            averages = [merge(a, b) for a, b in zip(averages, sums.averages(images), strict=True)]
        responses: Tensor | float = 0.0
        if passes == 2:
            for images in chunks.turn(1, passes).of(torch.float32, each, spare):
                responses = responses + sums.responses(averages, images)
        wanted = [(window.radius, window.taps, taps) for window in windows for taps in window.responses]
        places = [(window.radius, window.taps) for window in windows]
        found = []
        for setting in patch_sizes:
            radius, taps, response = self._of(setting)
            if len(response) == 1:
                found.append(averages[places.index((radius, taps))])
                continue
            cover = self._cover(height, width, torch.tensor(response, dtype=torch.float64))
            assert isinstance(responses, Tensor)
            found.append(_sure(responses[:, wanted.index((radius, taps, response))] / cover))
        return found

    def _cover(self, height: int, width: int, taps: Tensor) -> Tensor:
        """How much all locations together respond to each pixel, (height, width)."""
        sides = []
        for length in (height, width):
            apart = (torch.arange(length)[:, None] - torch.arange(length)[None, :]).abs()
            if self.padding_mode == "circular":
                apart = torch.minimum(apart, length - apart)
            padded = torch.cat([taps, taps.new_zeros(max(0, length - len(taps)))])
            sides.append(padded[apart].sum(dim=1))
        return sides[0][:, None] * sides[1][None, :]


def _sure(x0: Tensor) -> Partial:
    """An average that is known: (batch, channel, height, width)."""
    values = x0.permute(0, 2, 3, 1)
    none = values.new_zeros(values.shape[:3])
    return Partial(none, torch.ones_like(none), values)
