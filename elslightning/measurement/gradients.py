"""The receptive field that a network uses: its gradients around one pixel, per noise level."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.prediction import x0_from_eps
from elslightning.diffusion.sampling import reverse_process
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes, all_or_none

SHARES = (0.5, 0.9, 0.99)
"""Shares of the gradient that sizes are written down for.

At 0.9 the rest is too little to matter and yet not all of a faint halo counts; half and nearly all of it show how
much the choice matters: 0.99 comes close to the formal receptive field whenever the halo reaches so far.
"""


@dataclass(frozen=True)
class GradientField:
    """How strongly what a network makes of the centre pixel depends on every pixel of x_t.

    The centre is the pixel (height // 2, width // 2). Up to a factor, the fields of eps and x0 differ only there. At
    high noise eps is little but x_t itself, and its gradient a peak at the centre that says nothing about the network.
    The posterior mean x0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) is free of it, and is what a machine's
    patch size is about: sizes are those of its gradient.

    Attributes:
        alpha_bar: (steps,) noise levels, from t = 1 down to t = 1 / steps.
        gradient: (steps, height, width) of eps, not negative (Fig. 4a).
        x0_gradient: (steps, height, width) of the posterior mean, not negative.
        formal: side in pixels of the window that the architecture allows, if the network says so.
    """

    alpha_bar: Float64[Tensor, " steps"]
    gradient: Float[Tensor, "steps height width"]
    x0_gradient: Float[Tensor, "steps height width"]
    formal: int | None = None

    def size(self, share: float) -> Int64[Tensor, " steps"]:
        """The side of the window that holds a share of the gradient of x0, per step; see `effective_size`."""
        return effective_size(self.x0_gradient, share)


def effective_size(gradient: Float[Tensor, "steps height width"], share: float) -> Int64[Tensor, " steps"]:
    """The smallest odd P such that the P×P window around the centre holds a share of the gradient, per step.

    The window is cut at the border of the image; where there is no gradient at all, P is 1.

    Args:
        gradient: (steps, height, width), not negative, with its centre at (height // 2, width // 2).
        share: in (0, 1].

    >>> box = torch.zeros(1, 9, 9)
    >>> box[:, 2:7, 2:7] = 1
    >>> [effective_size(box, share).item() for share in (0.04, 0.05, 0.9, 1.0)]
    [1, 3, 5, 5]
    """
    height, width = gradient.shape[1:]
    rows, columns = (torch.arange(height) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
    radius = torch.maximum(rows[:, None], columns[None, :]).flatten()  # (pixel,)
    rings = torch.zeros(len(gradient), int(radius.max()) + 1, dtype=torch.float64)
    rings.index_add_(1, radius, gradient.double().flatten(1))
    within = rings.cumsum(dim=1)  # (step, radius)
    return 1 + 2 * (within < share * within[:, -1:]).sum(dim=1)


@doorway(denoiser="network", schedule="schedule", images="noise")
def gradient_field(
    network: Denoiser,
    schedule: Schedule,
    *,
    steps: int,
    noise: Images,
    labels: Labels | None = None,
    what: str = "receptive field",
    progress: Progress = no_progress,
    processes: Processes = ALONE,
) -> GradientField:
    """The gradients of a network's eps and x0 at the centre pixel, along its own reverse process (Fig. 4a).

    At each state, |∂eps(centre, channel) / ∂x_t(pixel, channel)| is summed over input channels, and averaged over
    samples and output channels; x0 alike. Weights gather no gradient, and it works where gradients are switched off.

    Args:
        network: what autograd can go through; images of a batch must not influence each other.
        schedule: gives the noise levels.
        steps: steps of the reverse process; one map each.
        noise: (samples, channel, height, width), where the process starts.
        labels: (samples,) int64, used if the network is conditional.
        what: what `progress` is told is being done.
        progress: told of every step.
        processes: each takes a share of the samples, and all get the same result.

    Raises:
        InputError: for a denoiser without gradients, such as a machine, and whatever the network does not take.
    """
    row, column = (side // 2 for side in noise.shape[2:])
    alpha_bars: list[Tensor] = []
    fields: list[Tensor] = []
    # Validation runs without gradients, perhaps in inference mode, whose tensors autograd does not take: of these,
    # copies made outside of it will do.
    with all_or_none(processes.group), torch.inference_mode(False), torch.enable_grad():
        start = processes.share(noise.clone())
        labels = network.select_labels(None if labels is None else processes.share(labels.clone()))
        for step in reverse_process(network, start, schedule, steps, labels):
            x_t, alpha_bar = step.x_t.clone().requires_grad_(), step.alpha_bar.expand(len(start))
            if not fields:
                _check_differentiable(network, x_t, alpha_bar, labels)
            # Images do not influence each other, so the sum over samples has the gradient of each.
            centre = network.eps(x_t, alpha_bar, labels)[:, :, row, column].sum(dim=0)
            each = []
            for channel, one in enumerate(centre):
                (eps,) = torch.autograd.grad(one, x_t, retain_graph=True)
                itself = torch.zeros_like(eps)  # the gradient of x_t at the centre
                itself[:, channel, row, column] = 1
                each.append(torch.stack([eps, x0_from_eps(itself, eps, alpha_bar)]).abs())
            # (output channel, eps or x0, sample, input channel, height, width)
            fields.append(torch.stack(each).sum(dim=3).mean(dim=0).cpu())
            alpha_bars.append(step.alpha_bar)
            progress(what, len(fields), steps)
    # (eps or x0, step, sample, height, width)
    of_eps, of_x0 = processes.join(torch.stack(fields, dim=1), len(noise), dim=2).mean(dim=2)
    return GradientField(torch.stack(alpha_bars), of_eps, of_x0, getattr(network, "receptive_field", None))


def _check_differentiable(network: Denoiser, x_t: Images, alpha_bar: Tensor, labels: Labels | None) -> None:
    """A machine's eps has a gradient, that of x_t, but its posterior mean has none."""
    one = slice(0, 1)
    if not network(x_t[one], alpha_bar[one], None if labels is None else labels[one]).requires_grad:
        raise InputError(f"{type(network).__name__} has no gradient: its posterior mean is computed without autograd")
