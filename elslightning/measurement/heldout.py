"""Calibration without a network: the patch size with which a machine denoises held-out images best, per noise level."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from elslightning.data.request import Split
from elslightning.diffusion.schedule import Schedule, add_noise
from elslightning.diffusion.shapes import Images, Labels, Progress, no_progress
from elslightning.measurement.calibration import Calibration, SettingsSweepable, State, Sweepable, tune
from elslightning.measurement.candidates import candidates_of
from elslightning.measurement.names import HELDOUT
from elslightning.system.errors import InputError
from elslightning.system.processes import ALONE, Processes


def heldout(
    machine: Sweepable | SettingsSweepable,
    schedule: Schedule,
    *,
    steps: int,
    patch_sizes: Sequence[int] | None,
    images: Images,
    noise: Images,
    labels: Labels | None = None,
    statistic: str = "mean",
    cap: int | None = None,
    further: Mapping[str, Sequence[float]] = MappingProxyType({}),
    what: str = "calibrating",
    progress: Progress = no_progress,
    processes: Processes = ALONE,
) -> Calibration:
    """The patch size per noise level with which `machine` denoises images it does not hold best.

    At each noise level every image is noised, with the same noise at all levels, and the machine's posterior mean is
    held against the clean image. Agreement is the negative mean squared error of x0. A wide window tells more but
    finds fewer training patches like it: the best size balances the two, and it grows with the training set.

    The statistic "mean" takes the size of the least error averaged over images, which tends to the best size for the
    distribution the images come from as they get more. The best sizes of single images scatter, with two peaks at high
    noise, and "median" and "mode" tend to something else.

    Args:
        machine: a local machine; its own scales are not used. Its training images must not be among `images`: an
            image that it holds is recalled best by the widest window.
        schedule: gives the noise levels.
        steps: number of noise levels, those of a reverse process of as many steps.
        patch_sizes: odd sizes to try, in increasing order; None where the patch size is not free.
        images: (samples, channel, height, width) clean held-out images, in [-1, 1].
        noise: like `images`, standard normal.
        labels: (samples,) int64 classes of the images, used if the machine is conditional.
        statistic: "mean", "median" or "mode", see `elslightning.measurement.candidates.STATISTICS`.
        cap: the greatest patch size to try; None sets no limit.
        further: values to try of what else is free in the machine, by name, in increasing order.
        what: what `progress` is told is being done.
        progress: told of every noise level.
        processes: each takes a share of the images, and all get the same result.

    Raises:
        InputError: for images and noise of different shapes, an unknown statistic, patch sizes that are missing, not
            increasing, all above the cap, or not for this machine, and whatever the machine does not take.
    """
    if images.shape != noise.shape or not len(images):
        raise InputError(
            f"held-out images and noise must have one shape: {tuple(images.shape)} and {tuple(noise.shape)}"
        )
    samples = len(images)
    images, noise = processes.share(images), processes.share(noise)

    def agreement(x0: Images) -> Tensor:
        return -(x0 - images).square().flatten(1).mean(dim=1)

    def states() -> Iterator[State]:
        for level in schedule.noise_levels(steps):
            alpha_bar = level.expand(len(images))
            yield State(add_noise(images, noise, alpha_bar), alpha_bar, agreement)

    return tune(
        machine,
        states(),
        HELDOUT,
        steps=steps,
        candidates=candidates_of(patch_sizes, further, cap),
        labels=None if labels is None else processes.share(labels),
        statistic=statistic,
        what=what,
        progress=progress,
        samples=samples,
        processes=processes,
    )


def draw(
    split: Split, count: int, generator: torch.Generator, images: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """`count` images of a held-out split, whatever its order, and their classes if the bank has labels.

    Args:
        split: images that the machines do not hold, such as the validation split.
        count: how many.
        generator: chooses them; the same for every bank.
        images, labels: the machines' bank, (N, channel, height, width) and (N,) int64 or None; gives the device.

    Raises:
        InputError: if there are too few, if they are all in the bank, or if a class is unknown to the bank.
    """
    if len(split.images) < count:
        raise InputError(
            f"calibration.num_samples={count}, but there are only {len(split.images)} held-out images (data.val_size)"
        )
    chosen = torch.randperm(len(split.images), generator=generator)[:count]
    clean = split.images[chosen].to(images.device)
    if all(bool((images == image).flatten(1).all(dim=1).any()) for image in clean):
        raise InputError("calibration.objective=heldout needs held-out images: those of this data set are trained on")
    if labels is None:
        return clean, None
    if split.labels is None:
        raise InputError("the machines are class-conditional, but the held-out images have no labels")
    classes = split.labels[chosen].to(labels.device)
    unknown = classes[~torch.isin(classes, labels)]
    if len(unknown):
        raise InputError(f"a held-out image has the label {int(unknown[0])}, which no training image has")
    return clean, classes
