"""EpsDenoiser: a backbone that predicts noise, seen as a posterior mean."""

from torch import nn

from elslightning.diffusion.denoiser import Denoiser, x0_from_eps
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.diffusion.shapes import AlphaBar, Images, Labels


class EpsDenoiser(Denoiser):
    """A noise-predicting backbone together with the schedule that gives it its times.

    Args:
        backbone: `backbone(x_t, t, labels) -> eps`, with attributes `channels`, `conditional` and `receptive_field`.
        schedule: maps alpha_bar to the backbone's time in [0, 1].
    """

    def __init__(self, backbone: nn.Module, schedule: CosineSchedule) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = schedule
        self.conditional = bool(backbone.conditional)
        self.image_shape = (int(backbone.channels), None, None)  # type: ignore[arg-type]

    @property
    def receptive_field(self) -> int | None:
        """Side of the window of x_t that one pixel of the output depends on; None if that is the whole image."""
        return self.backbone.receptive_field  # type: ignore[return-value]

    def eps(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The backbone's own prediction; arguments and errors as in `Denoiser.forward`."""
        self.check_inputs(x_t, alpha_bar, labels)
        t = self.schedule.time(alpha_bar).to(x_t.device, x_t.dtype)
        return self.backbone(x_t, t, labels)

    def forward(self, x_t: Images, alpha_bar: AlphaBar, labels: Labels | None = None) -> Images:
        """The posterior mean that the predicted noise implies, as in `Denoiser.forward`."""
        return x0_from_eps(x_t, self.eps(x_t, alpha_bar, labels), alpha_bar)
