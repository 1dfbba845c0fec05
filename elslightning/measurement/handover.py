"""Hand-over: how well a theory predicts a network's sample when the network has made the first steps itself."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.sampling import reverse_process, sample
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.measurement.agreement import agreement


def hand_over(
    network: Denoiser,
    machine: Denoiser,
    name: str,
    noise: Images,
    schedule: Schedule,
    steps: int,
    after: Sequence[int],
    labels: Labels | None = None,
    *,
    batch_size: int = 64,
    progress: Progress = no_progress,
) -> dict[int, Float64[Tensor, " pairs"]]:
    """Pearson r of the network's samples with those that a machine makes of the network's own state after k steps.

    Both go along one grid of `steps` noise levels. With k = 0 the machine starts at the noise, as in a comparison.
    Where the curve rises with k, the agreement was lost before; what is missing at its end, the last steps lose.

    Args:
        network, machine: the denoiser to explain, and the theory.
        name: of the machine, for `progress`.
        noise: (pairs, channel, height, width), where the network starts.
        schedule: gives the noise levels.
        steps: of the reverse process.
        after: the numbers k, from 0 to `steps` - 1.
        labels: (pairs,) int64, handed to whoever is conditional.
        batch_size: pairs sampled at once.
        progress: told of every step.

    Raises:
        InputError: for a k outside its range, and whatever network or machine do not take.

    Returns:
        (pairs,) on the CPU, for each k.
    """
    states: dict[int, list[Tensor]] = {k: [] for k in after}
    truth = []
    for first in range(0, len(noise), batch_size):
        part = slice(first, first + batch_size)
        x_t, classes = noise[part], None if labels is None else labels[part]
        if 0 in states:
            states[0].append(x_t)
        for done, step in enumerate(reverse_process(network, x_t, schedule, steps, classes), start=1):
            x_t = step.following
            if done in states:
                states[done].append(x_t)
        truth.append(x_t)
    network_samples = torch.cat(truth)

    def finished(k: int) -> Images:
        start = torch.cat(states[k] or [noise])
        told: dict[str, Any] = {"what": f"{name} after {k} network steps", "progress": progress}
        return sample(machine, start, schedule, steps, labels, skip=k, batch_size=batch_size, **told)

    return {k: agreement(finished(k), network_samples)["pearson_r"] for k in states}
