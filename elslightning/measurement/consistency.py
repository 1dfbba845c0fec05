"""Local consistency: whether the pixels of a sample are the centres of the training patches nearest to it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.schedule import add_noise
from elslightning.diffusion.shapes import AlphaBar, Images, Labels
from elslightning.machines.parameters import ParameterTable

HALF_GREY_LEVEL = 1 / 255
"""Half the distance between neighbouring bytes, where 0 … 255 stands for -1 … 1."""

NOISE_POWER = 1e-10
"""`1 - alpha_bar` at which a machine is asked. Candidates whose squared distances differ by more than a few times
this do not mix. In float32 `sqrt(alpha_bar)` is then 1, so samples are seen unrounded, and the machines keep enough
digits of their distances: on digits and Fashion-MNIST float32 found the very pixels that float64 did, for every
machine, where 1e-6 mixed up to 0.6 % of them with their second nearest."""


@runtime_checkable
class Scaled(Protocol):
    """A machine that sees patches, and can be asked with another patch size than its own."""

    scales: int | ParameterTable

    def sweep(
        self, x_t: Images, alpha_bar: AlphaBar, patch_sizes: Sequence[int], labels: Labels | None = None
    ) -> Tensor: ...


@doorway(denoiser="machine", images="samples")
def nearest_centres(samples: Images, machine: Denoiser, labels: Labels | None = None) -> Images:
    """What a machine paints each pixel with as the noise vanishes: the centre of its L2-nearest candidate.

    Nearness is measured with the sample's own patch (with the whole sample by machines that see whole images);
    candidates that are equally near are averaged. The patch size is that of the machine's lowest noise level.
    Arguments and errors as in `consistency`; shape, dtype and device of the result are those of `samples`.
    """
    alpha_bar = torch.full((len(samples),), 1 - NOISE_POWER, dtype=torch.float64)
    x_t = add_noise(samples, torch.zeros_like(samples), alpha_bar)
    labels = machine.select_labels(labels)
    if not isinstance(machine, Scaled):
        return machine(x_t, alpha_bar, labels)
    size = machine.scales if isinstance(machine.scales, int) else int(machine.scales.patch_size[0])
    return machine.sweep(x_t, alpha_bar, [size], labels)[0]


@doorway(denoiser="machine", images="samples")
def consistency(samples: Images, machine: Denoiser, labels: Labels | None = None) -> Float64[Tensor, " batch"]:
    """The share of each sample's pixels that are locally consistent, from 0 to 1 (Kamb & Ganguli, Theorem 4.1).

    A pixel is consistent if in every channel it equals the centre of the L2-nearest patch of its candidate set, to
    within half a grey level. Samples of a machine are entirely consistent with it in the limit of many steps.

    Args:
        samples: (batch, channel, height, width) in [-1, 1].
        machine: whose candidates count; on the device of the samples.
        labels: (batch,) int64, handed to a conditional machine.

    Raises:
        InputError: for what the machine does not take.

    Returns:
        (batch,) on the CPU.

    >>> from elslightning.machines import IdealScoreMachine
    >>> black_white = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).repeat(1, 1, 2, 2)
    >>> samples = black_white.clone()
    >>> samples[0, 0, 1, 1] = 0.5
    >>> consistency(samples, IdealScoreMachine(black_white)).tolist()
    [0.75, 1.0]
    """
    distance = (samples - nearest_centres(samples, machine, labels)).abs().amax(dim=1)  # (batch, height, width)
    return (distance <= HALF_GREY_LEVEL).flatten(1).cpu().double().mean(dim=1)
