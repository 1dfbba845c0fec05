"""The order parameter: how many candidates a pixel still averages over, of all that it has, on the way to the image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from elslightning.diffusion.sampling import reverse_process
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.machines.canvas import Canvas
from elslightning.measurement.canvases import attribute_canvas


@dataclass(frozen=True)
class Order:
    """Effective candidates along a reverse process, from t = 1 down.

    Of N images, those of the bank or, for a conditional machine, of the sample's class, a pixel's posterior weighs N·L
    candidates, at the L locations it may copy from. While exp(entropy) is above N, even a machine that recalls could
    not be surer of the image than this pixel is of its patch; where it has come down to 1 with one image alone left,
    the pixel memorises that image; where it comes to 1 with different images in different places, the sample is new.

    Attributes:
        alpha_bar: (steps,) noise levels.
        effective: (steps, batch, height, width) exp(entropy) of every pixel's posterior, at least 1.
        order: (steps, batch, height, width) 1 - entropy / ln(N), from 1 for a pixel that is decided, through 0 for one
            that has as many effective candidates as there are images, to below.
        main_share: (steps, batch) the share of pixels whose likeliest candidate is in the image that most have it in.
        images: (batch,) N.
    """

    alpha_bar: Float64[Tensor, " steps"]
    effective: Tensor
    main_share: Float64[Tensor, "steps batch"]
    images: Int64[Tensor, " batch"]

    @property
    def order(self) -> Tensor:
        return 1 - self.effective.log() / self.images.clamp(min=2).log().to(self.effective)[:, None, None]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per step and sample, for a CSV; `step` counts down from the number of steps to 1."""
        steps, batch = self.effective.shape[:2]
        order = self.order
        for index in range(steps):
            for sample in range(batch):
                yield {
                    "step": steps - index,
                    "alpha_bar": self.alpha_bar[index].item(),
                    "sample": sample,
                    "effective_median": self.effective[index, sample].quantile(0.5).item(),
                    "order": order[index, sample].mean().item(),
                    "decided": (self.effective[index, sample] < 2).double().mean().item(),
                    "main_share": self.main_share[index, sample].item(),
                }


def order_parameter(
    canvas: Canvas,
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    guide: Any = None,
    progress: Progress = no_progress,
) -> Order:
    """The order parameter of a machine's process, or, by the machine's windows, of another denoiser's.

    Args:
        canvas: an attributable machine, on the samples' size or any other.
        noise: (batch, channel, height, width), the state at t = 1.
        schedule: gives the noise levels.
        steps: of the process.
        labels: (batch,) int64, used by whichever denoiser is conditional.
        guide: the denoiser whose process it is, for instance a network; the machine's own if not given.
        progress: told of every step.

    Raises:
        InputError: as `canvases.attribute_canvas`.
    """
    classes = canvas.select_labels(labels)
    levels, effective, shares = [], [], []
    for step in reverse_process(canvas if guide is None else guide, noise, schedule, steps, labels):
        found = attribute_canvas(canvas, step.x_t, step.alpha_bar.expand(len(noise)), classes)
        main = found.image[..., 0].flatten(1)
        counts = torch.stack([row.bincount().max() for row in main])
        levels.append(step.alpha_bar)
        effective.append(found.effective)
        shares.append(counts.double() / main.shape[1])
        progress("order parameter", len(levels), steps)
    images, known = torch.full((len(noise),), len(canvas.machine.images)), canvas.machine.labels
    if classes is not None and known is not None:
        images = (known.cpu() == classes.cpu()[:, None]).sum(dim=1)
    return Order(torch.stack(levels), torch.stack(effective), torch.stack(shares), images)
