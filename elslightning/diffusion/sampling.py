"""The reverse process: deterministic DDIM on the one time grid, for networks and machines alike."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.doorway import doorway
from elslightning.diffusion.prediction import eps_from_x0
from elslightning.diffusion.schedule import Schedule, add_noise
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.system.errors import InputError


class Step(NamedTuple):
    """One evaluation of the denoiser: the state it saw, what it made of it, and the next state."""

    alpha_bar: Float64[Tensor, ""]
    x_t: Images
    x0: Images
    following: Images


class Trajectory(NamedTuple):
    """A reverse process, from noise to samples.

    With T steps, position 0 is t = 1 and position T is t = 0. With `skip`, T is that much less, and position 0 is
    t = 1 - skip / steps.
    """

    alpha_bar: Float64[Tensor, " states"]
    """(T + 1,) signal power of every state; the last is 1."""
    x_t: Float[Tensor, "states batch channel height width"]
    """(T + 1, batch, channel, height, width) states."""
    x0: Float[Tensor, "steps batch channel height width"]
    """(T, batch, channel, height, width) posterior means at all states but the last."""

    @property
    def samples(self) -> Images:
        """The last state, (batch, channel, height, width)."""
        return self.x_t[-1]


def reverse_process(
    denoiser: Denoiser,
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    skip: int = 0,
) -> Iterator[Step]:
    """The steps of deterministic DDIM, one after the other, in memory that does not grow with their number.

    `x_{t-1} = sqrt(alpha_bar_{t-1}) x0 + sqrt(1 - alpha_bar_{t-1}) eps` for t_i = i / steps, from t = 1 to 0.
    Arguments and errors as in `ddim`.
    """
    grid = schedule.grid(steps)
    if not 0 <= skip < steps:
        raise InputError(f"a reverse process of {steps} steps cannot leave out the first {skip}")
    alpha_bars = schedule.alpha_bar(grid[skip:])
    x_t = noise
    labels = denoiser.select_labels(labels)
    for now, then in itertools.pairwise(alpha_bars):
        alpha_bar = now.expand(len(noise))
        with torch.no_grad():
            x0 = denoiser(x_t, alpha_bar, labels)
            following = add_noise(x0, eps_from_x0(x_t, x0, alpha_bar), then.expand(len(noise)))
        yield Step(now, x_t, x0, following)
        x_t = following


@doorway(denoiser="denoiser", schedule="schedule", images="noise")
def ddim(
    denoiser: Denoiser,
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    skip: int = 0,
    progress: Progress = no_progress,
) -> Trajectory:
    """Samples by deterministic DDIM, with everything on the way.

    Args:
        denoiser: a network or a machine.
        noise: (batch, channel, height, width) standard normal, the state at t = 1.
        schedule: gives the noise levels.
        steps: number of evaluations of the denoiser, T.
        labels: (batch,) int64, used if the denoiser is conditional.
        skip: so many of the first times are left out, and the noise is taken for the state at t = 1 - skip / steps.
        progress: told of every step.

    Raises:
        InputError: for steps < 1, a skip that leaves none of them, and whatever the denoiser does not take.
    """
    states, means, alpha_bars = [noise], [], []
    for step in reverse_process(denoiser, noise, schedule, steps, labels, skip=skip):
        states.append(step.following)
        means.append(step.x0)
        alpha_bars.append(step.alpha_bar)
        progress("sampling", len(means), steps - skip)
    alpha_bars.append(torch.ones((), dtype=torch.float64))
    return Trajectory(torch.stack(alpha_bars), torch.stack(states), torch.stack(means))


@doorway(denoiser="denoiser", schedule="schedule", images="noise")
def sample(
    denoiser: Denoiser,
    noise: Images,
    schedule: Schedule,
    steps: int,
    labels: Labels | None = None,
    *,
    skip: int = 0,
    batch_size: int = 64,
    what: str = "sampling",
    progress: Progress = no_progress,
) -> Images:
    """The samples of `ddim` alone, `batch_size` at a time; other arguments and errors as there."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    done, x_t, results = 0, noise[:0], []

    def tell(fraction: float) -> None:
        progress(what, done + fraction * len(x_t), len(noise) * (steps - skip))

    for start in range(0, len(noise), batch_size):
        part = slice(start, start + batch_size)
        x_t = noise[part]
        classes = None if labels is None else labels[part]
        with denoiser.reporting(tell):
            for step in reverse_process(denoiser, x_t, schedule, steps, classes, skip=skip):
                x_t = step.following
                done += len(x_t)
                tell(0)
        results.append(x_t)
    return torch.cat(results)
