"""The one interface of networks and machines: a map from a noisy image to its posterior mean."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from elslightning.diffusion.prediction import convert
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.system.errors import InputError, kind


class Denoiser(nn.Module, ABC):
    """A posterior mean `E[x0 | x_t]`: trained networks and analytic machines alike.

    Attributes:
        conditional: whether `forward` needs labels.
        prediction: what `predict` returns, which is what training compares: "eps", "v" or "x0".
        on_progress: told the fraction done of an evaluation that may take long; networks never call it.
        image_shape: the (channel, height, width) it is made for; a channel or side it leaves free is None.
    """

    conditional: bool = False
    prediction: str = "eps"
    on_progress: Callable[[float], None] = staticmethod(lambda fraction: None)
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)

    @property
    def learned(self) -> bool:
        """Whether training made it: it has parameters. Machines have none, and follow from the training images."""
        return next(self.parameters(), None) is not None

    @abstractmethod
    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean `E[x0 | x_t]`, of the shape, dtype and device of `x_t`.

        Args:
            x_t: (batch, channel, height, width) noisy images, `sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`.
            alpha_bar: (batch,) float64 signal power, in (0, 1), one per image.
            labels: (batch,) int64 classes, given exactly when the denoiser is conditional.

        Raises:
            InputError: for shapes, ranges or labels that this denoiser cannot take.
        """

    def eps(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The predicted noise; same arguments as `forward`."""
        return convert(x_t, self(x_t, alpha_bar, labels), alpha_bar, "x0", "eps")

    def predict(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean in the parametrisation `prediction`; same arguments as `forward`.

        A network returns what it computed, before any conversion.
        """
        if self.prediction == "eps":
            return self.eps(x_t, alpha_bar, labels)
        return convert(x_t, self(x_t, alpha_bar, labels), alpha_bar, "x0", self.prediction)

    @contextmanager
    def reporting(self, on_progress: Callable[[float], None]) -> Iterator[None]:
        """Within the block, `on_progress` is told the fraction done of every evaluation."""
        previous, self.on_progress = self.on_progress, on_progress
        try:
            yield
        finally:
            self.on_progress = previous

    def select_labels(self, labels: Labels | None) -> Labels | None:
        """The labels to hand to this denoiser: all of them, or None where it is unconditional."""
        return labels if self.conditional else None

    def check_inputs(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None) -> None:
        """The doorway of every `forward`: shapes, range of alpha_bar, presence of labels.

        Raises:
            InputError: naming what is wrong.
        """
        name = type(self).__name__
        for what, value in (("images", x_t), ("alpha_bar", alpha_bar), ("labels", labels)):
            if not isinstance(value, Tensor) and not (what == "labels" and value is None):
                raise InputError(f"{name} takes {what} as a torch tensor, not {kind(value)}")
        if not x_t.is_floating_point():
            raise InputError(f"{name} takes noisy images as floating point numbers, not {x_t.dtype}")
        if x_t.ndim != 4:
            raise InputError(f"{name} takes images (batch, channel, height, width), not of shape {tuple(x_t.shape)}")
        if any(want not in (None, got) for want, got in zip(self.image_shape, x_t.shape[1:], strict=True)):
            want = " x ".join("any" if side is None else str(side) for side in self.image_shape)
            got = " x ".join(str(side) for side in x_t.shape[1:])
            raise InputError(f"{name} takes images of {want} (channel x height x width), not {got}")
        if alpha_bar.shape != x_t.shape[:1]:
            raise InputError(
                f"{name} needs one alpha_bar per image: {len(x_t)} images, alpha_bar of {tuple(alpha_bar.shape)}"
            )
        if alpha_bar.dtype != torch.float64:
            raise InputError(f"alpha_bar must be float64, not {alpha_bar.dtype}: close to 1, float32 loses its digits")
        if not bool(((alpha_bar > 0) & (alpha_bar < 1)).all()):
            raise InputError(f"alpha_bar must lie in (0, 1), not {_outside(alpha_bar)}")
        if self.conditional and labels is None:
            raise InputError(f"{name} is class-conditional: it needs a label per image")
        if not self.conditional and labels is not None:
            raise InputError(f"{name} is unconditional: it takes no labels")
        if labels is not None and labels.shape != x_t.shape[:1]:
            raise InputError(f"{name} needs one label per image: {len(x_t)} images, {len(labels)} labels")


def _outside(alpha_bar: AlphaBar) -> float:
    """The first value that is not in (0, 1)."""
    inside = (alpha_bar > 0) & (alpha_bar < 1)
    return float(alpha_bar[~inside][0])
