"""The lists of denoisers that tests run over: the machines of the registry, and the networks, a line each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from reference import SOFT as SOFT_PARAMETERS
from reference import parameters
from torch import Tensor

from elslightning.diffusion.denoiser import Denoiser
from elslightning.diffusion.schedule import CosineSchedule
from elslightning.machines import ScoreMachine
from elslightning.machines.registry import ENTRIES, Entry
from elslightning.machines.scales import ScaleTable
from elslightning.networks.adapter import NetworkDenoiser
from elslightning.networks.resnet import ResNet
from elslightning.networks.unet import UNet
from elslightning.testing import DenoiserContract, random_images

CHANNELS, HEIGHT, WIDTH = DenoiserContract.channels, DenoiserContract.height, DenoiserContract.width
CLASSES = DenoiserContract.classes
TABLE = ScaleTable([0.95, 0.5, 0.05], [1, 3, 5])


def without_scales(machine: Callable[..., ScoreMachine]) -> Callable[..., ScoreMachine]:
    """A machine that has no patches, made like those that have."""
    return lambda images, labels=None, scales=None, **options: machine(images, labels, **options)


def like_its_twin(entry: Entry) -> Callable[..., ScoreMachine]:
    """A machine with the parameters of its twin in `reference.py`, made like those that have patch sizes."""

    def make(images: Tensor, labels: Tensor | None = None, scales: Any = None, **options: Any) -> ScoreMachine:
        return entry.machine(images, labels, **parameters(entry.name, *images.shape[-2:]), **options)

    return make


def resnet(images: Tensor, labels: Tensor | None, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    conditional = labels is not None
    backbone = ResNet(images.shape[1], width=32, num_layers=1, conditional=conditional, num_classes=CLASSES, **options)
    return NetworkDenoiser(backbone, CosineSchedule())


def unet(images: Tensor, labels: Tensor | None, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    conditional = labels is not None
    backbone = UNet(images.shape[1], width=16, num_levels=2, conditional=conditional, num_classes=CLASSES, **options)
    return NetworkDenoiser(backbone, CosineSchedule())


WHOLE_IMAGE: dict[str, Callable[..., ScoreMachine]] = {
    entry.name: without_scales(entry.machine) for entry in ENTRIES if entry.machine.attributable and not entry.local
}
LOCAL: dict[str, Callable[..., ScoreMachine]] = {
    entry.name: entry.machine for entry in ENTRIES if entry.machine.attributable and entry.local
}
ATTRIBUTABLE = WHOLE_IMAGE | LOCAL
"""Machines that copy single patches, by the name of their twin in `reference.py`: `(images, labels=None, scales=...,
**options)`."""
THEORIES: dict[str, Callable[..., ScoreMachine]] = {
    entry.name: like_its_twin(entry)
    for entry in ENTRIES
    if not entry.machine.attributable and "softness" not in entry.machine.free
}
"""The others, made likewise, with the parameters of their twins."""
SOFT: dict[str, Callable[..., ScoreMachine]] = {
    entry.name: partial(entry.machine, **SOFT_PARAMETERS) for entry in ENTRIES if "softness" in entry.machine.free
}
"""Those of the others that have patch sizes, with the softness and the response of their twins."""
MACHINES = ATTRIBUTABLE | THEORIES | SOFT
EXTRAPOLATING = {"wiener"}
"""Those whose pixels may lie outside the range of the training images' pixels."""

DENOISERS: dict[str, Callable[[Tensor, Tensor | None], Denoiser]] = {
    **WHOLE_IMAGE,
    **{name: machine for name, machine in THEORIES.items() if name != "mean"},
    **{f"{name}, P = 3": partial(machine, scales=3) for name, machine in (LOCAL | SOFT).items()},
    **{f"{name}, table": partial(machine, scales=TABLE) for name, machine in (LOCAL | SOFT).items()},
    "resnet, zeros": partial(resnet, padding_mode="zeros"),
    "resnet, circular": partial(resnet, padding_mode="circular", time_embedding="mlp"),
    "resnet, v": partial(resnet, prediction="v"),
    "resnet, x0": partial(resnet, prediction="x0"),
    "unet, zeros": partial(unet, padding_mode="zeros"),
    "unet, circular, attention": partial(unet, padding_mode="circular", time_embedding="mlp", attention=[1]),
}
"""Denoisers `(images, labels or None)`, conditional exactly when there are labels; `mean` has a test of its own, for it
does not look at the noisy image."""


def small_machines() -> dict[str, Denoiser]:
    """Three machines over six images of 5×5 pixels."""
    images = random_images(6, 1, 5, 5)
    return {name: MACHINES[name](images, scales=3) for name in ("bbels", "ls", "is")}
