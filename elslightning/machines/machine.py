"""ScoreMachine: what the analytic machines share: the bank, labels, shards, memory."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.doorway import check_bank
from elslightning.machines.kernels import Partial, full_precision, merge_over, posterior_mean
from elslightning.machines.memory import default_budget, fitting
from elslightning.machines.parameters import PATCH_SIZE, Parameter, check_parameter
from elslightning.system.errors import InputError
from elslightning.system.keeping import Part
from elslightning.system.processes import all_or_none, gather, meet

LARGEST = 1e30
"""The greatest number in a noisy image: log-weights of greater ones could leave the range of float32."""
_ATTRIBUTES = {PATCH_SIZE: "scales"}


class ScoreMachine(Denoiser):
    """The posterior mean of an empirical distribution of images, under a constraint that a subclass states.

    A machine has no parameters; its images are non-persistent buffers.

    Args:
        images: (N, channel, height, width), the training set; floating point in [-1, 1], or bytes, where
            0 … 255 stands for -1 … 1 and only the chunk in use is converted.
        labels: (N,) int64; given, the machine is class-conditional: an image with label y sees only the
            training images of class y.
        memory_budget: bytes that one evaluation may take beyond the bank and its result, on the device of the
            images; None takes a quarter of what is free there when it starts. It bounds how many images are
            worked on at once, and does not change what comes out.
        process_group: given, the bank is one shard of a larger one, and every process of the group holds
            another, perhaps an empty one. All call the machine with the same images at the same time and get
            the same result, that of the whole bank. If one fails, all raise.
        own_images: with a process group, every process calls the machine with noisy images of its own instead, as
            many as every other, and gets the result for them.

    Raises:
        InputError: for an empty bank, pixels that are not finite, labels that do not match, or a budget below 1.
    """

    images: Tensor
    labels: Tensor | None
    padding_mode: ClassVar[str] = "zeros"
    """What is beyond the border of an image: "zeros" or "circular"."""
    pooled: ClassVar[bool] = False
    """Whether a pixel's candidates lie at other locations than its own."""
    free: ClassVar[tuple[str, ...]] = ()
    """What is free in the machine, and may be calibrated: each a number or a column of a table over noise levels, given
    to the constructor and kept as an attribute of the same name; `patch_size` as `scales`."""
    attributable: ClassVar[bool] = False
    """Whether a pixel is an average of single training pixels, by the weights of the hard windows around them."""

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__()
        check_bank(images, labels, type(self).__name__, shard=process_group is not None)
        if memory_budget is not None and memory_budget < 1:
            raise InputError(f"memory_budget must be at least 1 byte, not {memory_budget}")
        self.register_buffer("images", images, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self.memory_budget = memory_budget
        self.process_group = process_group
        self.own_images = own_images
        self.conditional = labels is not None
        self.image_shape = tuple(images.shape[1:])  # type: ignore[assignment]

    @torch.no_grad()
    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean of the machine; arguments and errors as in `Denoiser.forward`.

        Raises:
            InputError: also for a label with no training image, and a memory budget too small for one image.
        """
        self.check_inputs(x_t, alpha_bar, labels)
        return self._evaluate(x_t, alpha_bar, labels, self._setting_at(alpha_bar)[:, None])[0]

    @property
    def replica(self) -> "ScoreMachine | None":
        """The same machine with other draws, where its posterior means rest on draws that have an error; else None."""
        return None

    @property
    def doubtful(self) -> float | None:
        """The share of pixels, of all that it has evaluated, whose error is above what was asked;
        None of a machine without errors."""
        return None

    @torch.no_grad()
    def sweep_settings(
        self,
        x_t: Images,
        alpha_bar: AlphaBar,
        settings: Sequence[Mapping[str, float]],
        labels: Labels | None = None,
    ) -> Tensor:
        """The posterior mean with each of some settings of what is free in the machine.

        Args:
            x_t, alpha_bar, labels: as in `forward`.
            settings: values of `free` parameters by name; the others stay as they are in the machine.

        Returns:
            (len(settings), batch, channel, height, width).

        Raises:
            InputError: as `forward`, for no settings, a parameter that is not free, and a value it cannot have.
        """
        self.check_inputs(x_t, alpha_bar, labels)
        return torch.stack([machine(x_t, alpha_bar, labels) for machine in self._machines(settings)])

    def _machines(self, settings: Sequence[Mapping[str, float]]) -> list[Any]:
        """This machine with each of some settings."""
        if not settings:
            raise InputError("a sweep needs at least one setting")
        return [self.with_setting(setting) for setting in settings]

    def with_setting(self, setting: Mapping[str, float]) -> Any:
        """This machine, on the same images, with other values of what is free in it.

        Raises:
            InputError: for a parameter that is not free, and a value it cannot have.
        """
        other = copy.copy(self)
        for name, value in setting.items():
            if name not in self.free:
                free = ", ".join(self.free) or "nothing"
                raise InputError(f"{name} is not free in {type(self).__name__}; free is {free}")
            self._check_parameter(name, value)
            setattr(other, _ATTRIBUTES.get(name, name), value)
        return other

    def _check_parameter(self, name: str, value: float) -> None:
        """Raises InputError unless the machine can use this value of a free parameter."""
        check_parameter(name, value)

    def _parameter_at(self, name: str, alpha_bar: AlphaBar) -> Tensor:
        """The value (batch,) of a free parameter at each noise level."""
        return Parameter(name, getattr(self, _ATTRIBUTES.get(name, name))).at(alpha_bar)

    def _setting_at(self, alpha_bar: AlphaBar) -> Tensor:
        """What `_partials` is given at each noise level: patch sizes (batch,), or all that is free (batch, free)."""
        return self.patch_size_at(alpha_bar)

    def check_inputs(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None) -> None:
        """As in `Denoiser.check_inputs`, and that noisy images are numbers that can be squared.

        Raises:
            InputError: naming what is wrong.
        """
        super().check_inputs(x_t, alpha_bar, labels)
        largest = float(x_t.abs().max()) if x_t.numel() else 0.0
        if not largest <= LARGEST:  # nor is NaN
            name = type(self).__name__
            raise InputError(f"{name} takes noisy images of numbers from -{LARGEST:g} to {LARGEST:g}, not {largest:g}")

    @abstractmethod
    def patch_size_at(self, alpha_bar: AlphaBar) -> Tensor:
        """The patch size (batch,) that the machine uses at each noise level; 0 where it has none."""

    @abstractmethod
    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        """Memory that one more noisy image takes while it is worked on."""

    @abstractmethod
    def _partials(
        self, x_t: Images, alpha_bar: AlphaBar, chunks: "Chunks", patch_sizes: Sequence[int]
    ) -> list[Partial]:
        """The average of these chunks of training images, (batch, height, width), for each patch size."""

    def _evaluate(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Tensor:
        """The posterior means (size, batch, channel, height, width) for patch sizes (batch, size); where more is free
        than these, for settings (batch, size, free).

        Of images in half precision they are computed in float32: log-weights reach thousands.
        """
        if x_t.dtype in (torch.float16, torch.bfloat16):
            return self._evaluate(x_t.float(), alpha_bar, labels, patch_sizes).to(x_t.dtype)
        group = self.process_group
        if group is None or not self.own_images:
            return self._evaluate_same(x_t, alpha_bar, labels, patch_sizes)
        # Every process evaluates the images of all, against its shard of the bank.
        meet(group)  # whoever has failed meanwhile is not coming
        everyones = [
            None if part is None else torch.cat(gather(part, group)) for part in (x_t, alpha_bar, labels, patch_sizes)
        ]
        result = self._evaluate_same(*everyones)  # type: ignore[arg-type]
        return result.narrow(1, dist.get_rank(group) * len(x_t), len(x_t))

    def _options(self) -> Sequence[Part]:
        """All else that the results of a subclass depend on, but for its patch sizes."""
        return ()

    def _evaluate_same(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None, patch_sizes: Tensor) -> Tensor:
        """The same, for images that all processes of the group have in common.

        Images of the same label and patch sizes together: they share their candidates.
        """
        result = x_t.new_empty((patch_sizes.shape[1], *x_t.shape))
        classes = torch.zeros(len(x_t), dtype=torch.int64) if labels is None else labels.cpu()
        settings = patch_sizes.cpu()
        keys = torch.cat([classes[:, None].to(settings), settings.flatten(1)], dim=1)  # (batch, 1 + size · free)
        budget = self.memory_budget or default_budget(x_t.device)
        done = 0
        with full_precision(x_t.device):
            for key in keys.unique(dim=0):
                label, sizes = int(key[0]), key[1:].reshape(settings.shape[1:]).tolist()
                rows = (keys == key).all(dim=1).nonzero()[:, 0]
                parts = []
                with all_or_none(self.process_group):
                    bank = self.bank(label, budget // 2)
                    at_once = fitting(budget // 2, self._image_bytes(x_t, sizes), len(rows), "one noisy image")
                    for part in rows.split(at_once):

                        def tick(fraction: float, start: int = done, count: int = len(part)) -> None:
                            self.on_progress((start + fraction * count) / len(x_t))

                        chunks = bank.telling(tick)
                        parts.append(self._partials(x_t[part.to(x_t.device)], alpha_bar.cpu()[part], chunks, sizes))
                        done += len(part)
                for mean, size, pieces in zip(result, sizes, zip(*parts, strict=True), strict=True):
                    partial = Partial(*(torch.cat(tensors) for tensors in zip(*pieces, strict=True)))
                    if self.process_group is not None:
                        partial = merge_over(partial, self.process_group)
                    if not bool((partial.weight > 0).all()):
                        raise InputError(f"{type(self).__name__} has no training image with label {label}")
                    mean[rows.to(x_t.device)] = self._image_mean(partial, x_t, size).to(x_t.dtype)
        return result

    def _image_mean(self, partial: Partial, x_t: Images, setting: Any) -> Tensor:
        """The posterior means (image, channel, height, width) of images like `x_t`, of what `_partials` made with a
        patch size, or a setting of all that is free."""
        return posterior_mean(partial).permute(0, 3, 1, 2)

    def bank(self, label: int | None = None, budget: int | None = None, *, first: int | None = None) -> Chunks:
        """The training images that count for a label, all of them where the machine is unconditional, to go through a
        few at a time.

        Args:
            label: of the noisy image.
            budget: bytes that a chunk and what is made of it may take; None takes all that an evaluation may.
            first: index of a training image that comes before the others, if it counts.

        Raises:
            InputError: for a label with no training image, unless other processes may have some.
        """
        budget = budget or self.memory_budget or default_budget(self.images.device)
        if self.labels is None or label is None:
            label, members = None, torch.arange(len(self.images), device=self.images.device)
        else:
            members = (self.labels == label).nonzero()[:, 0]
            if len(members) == 0 and self.process_group is None:
                raise InputError(f"{type(self).__name__} has no training image with label {label}")
        if first is not None:
            members = torch.cat([members[members == first], members[members != first]])
        return Chunks(self.images, members, budget, label)
