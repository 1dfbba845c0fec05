"""ScoreMachine: what the analytic machines share: the bank, labels, chunks, batches."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from elslightning.denoiser import Denoiser
from elslightning.errors import InputError
from elslightning.machines.kernels import full_precision
from elslightning.shapes import AlphaBar, Bank, Images, Labels

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
