"""Stepwise: how well theories agree with a network at the network's own states, noise level by noise level."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.sampling import reverse_process
from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress

STEPWISE = ("eps_cosine", "x0_mse")
"""Measures of `at_states`."""


def at_states(
    network: Denoiser,
    others: Mapping[str, Denoiser],
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    batch_size: int = 64,
    progress: Progress = no_progress,
) -> tuple[Float64[Tensor, " steps"], dict[str, dict[str, Float64[Tensor, "steps pairs"]]]]:
    """Agreement of posterior means with the network's, at every state of the network's own reverse process.

    On processes of their own differences add up; at one state only the noise level's own counts. The mean squared
    error of x0 divides by alpha_bar what a network that predicts eps gets wrong at high noise; the cosine of eps does
    not.

    Args:
        network: the denoiser to explain.
        others: machines and other networks by name.
        noise: (pairs, channel, height, width), where the network starts.
        schedule: gives the noise levels.
        steps: of the reverse process.
        labels: (pairs,) int64, handed to whoever is conditional.
        batch_size: pairs at once.
        progress: told of every step.

    Raises:
        InputError: for whatever network or others do not take.

    Returns:
        The noise levels, and by name the measures `eps_cosine` (between the two eps) and `x0_mse` (of x0 over all
        channels and pixels), on the CPU.
    """
    levels: list[Tensor] = []
    parts: dict[str, dict[str, list[Tensor]]] = {name: {measure: [] for measure in STEPWISE} for name in others}
    batches = range(0, len(noise), batch_size)
    for batch, first in enumerate(batches):
        part = slice(first, first + batch_size)
        classes = None if labels is None else labels[part]
        levels, found = [], {name: {measure: [] for measure in STEPWISE} for name in others}  # type: ignore[var-annotated]
        for step in reverse_process(network, noise[part], schedule, steps, classes):
            alpha_bar = step.alpha_bar.expand(len(step.x_t))
            levels.append(step.alpha_bar)
            truth = eps_from_x0(step.x_t, step.x0, alpha_bar).double().flatten(1)
            for name, other in others.items():
                with torch.no_grad():
                    x0 = other(step.x_t, alpha_bar, other.select_labels(classes))
                eps = eps_from_x0(step.x_t, x0, alpha_bar).double().flatten(1)
                found[name]["eps_cosine"].append(cosine_similarity(eps, truth, dim=1).cpu())
                found[name]["x0_mse"].append((x0 - step.x0).double().square().flatten(1).mean(dim=1).cpu())
            progress("at the network's states", batch * steps + len(levels), len(batches) * steps)
        for name, measures in found.items():
            for measure, values in measures.items():
                parts[name][measure].append(torch.stack(values))
    whole: dict[str, dict[str, Any]] = {
        name: {measure: torch.cat(values, dim=1) for measure, values in measures.items()}
        for name, measures in parts.items()
    }
    return torch.stack(levels).cpu(), whole
