"""Trained networks seen as posterior means: `NetworkDenoiser` for backbones that predict eps, v or x0."""

import torch
from torch import nn

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import check_prediction, convert
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.system.errors import InputError


class ScheduledDenoiser(Denoiser):
    """A trained network together with the schedule that gives it its times.

    At more noise than its schedule has, it is asked at its last time, as if x_t had the noise of that: next to nothing
    is left of the image in either.

    Args:
        schedule: along whose grid it is sampled, unless another is named.

    Attributes:
        receptive_field: side of the window of x_t that one pixel of the output depends on; None if that is the whole
            image, or not known.
    """

    receptive_field: int | None = None

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    @property
    def least_alpha_bar(self) -> float:
        """The signal power of its noisiest time, t = 1."""
        return float(self.schedule.alpha_bar(torch.ones((), dtype=torch.float64, device="cpu")))

    def _known(self, alpha_bar: AlphaBar) -> AlphaBar:
        """The noise levels at which it is asked: those of its schedule."""
        # A little less than the last: the last digit of alpha_bar depends on how many are computed at once.
        return alpha_bar.clamp(min=self.least_alpha_bar * (1 - 1e-9))


class NetworkDenoiser(ScheduledDenoiser):
    """A backbone of ours, or one made like them, together with the schedule that gives it its times.

    Args:
        backbone: `backbone(x_t, t, labels) -> predicted`, with an attribute `channels`, and where it is not what is
            assumed, `conditional` (False), `receptive_field` (None), and `prediction`, which names what it returns:
            "eps", "v" or "x0" ("eps").
        schedule: maps alpha_bar to the backbone's time in [0, 1].

    Raises:
        InputError: for a backbone that does not say its channels, and another prediction.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__(schedule)
        if not hasattr(backbone, "channels"):
            raise InputError(
                f"{type(backbone).__name__} has no attribute channels, which says how many its images have: a backbone "
                "is called as (x_t, t, labels); els.ModuleDenoiser(module, ...) takes any other module"
            )
        self.backbone = backbone
        self.receptive_field = getattr(backbone, "receptive_field", None)
        self.conditional = bool(getattr(backbone, "conditional", False))
        self.image_shape = (int(backbone.channels), None, None)  # type: ignore[arg-type]
        self.prediction = str(getattr(backbone, "prediction", "eps"))
        check_prediction(self.prediction)

    def predict(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The backbone's own prediction; arguments and errors as in `Denoiser.forward`."""
        self.check_inputs(x_t, alpha_bar, labels)
        t = self.schedule.time(alpha_bar).clamp(max=1).to(x_t.device, x_t.dtype)
        return self.backbone(x_t, t, labels)

    def eps(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The noise that it predicts; arguments and errors as in `Denoiser.forward`."""
        predicted, known = self.predict(x_t, alpha_bar, labels), self._known(alpha_bar)
        eps = convert(x_t, predicted, known, self.prediction, "eps")
        if torch.equal(known, alpha_bar):
            return eps
        return convert(x_t, convert(x_t, eps, known, "eps", "x0"), alpha_bar, "x0", "eps")

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean that the prediction implies, as in `Denoiser.forward`."""
        predicted = self.predict(x_t, alpha_bar, labels)
        return convert(x_t, predicted, self._known(alpha_bar), self.prediction, "x0")


class EpsDenoiser(NetworkDenoiser):
    """A backbone that predicts noise, as those of the paper do; arguments as of `NetworkDenoiser`.

    Raises:
        InputError: if the backbone predicts something else.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__(backbone, schedule)
        if self.prediction != "eps":
            raise InputError(
                f"EpsDenoiser takes a network that predicts eps, not {self.prediction}: NetworkDenoiser takes any"
            )
