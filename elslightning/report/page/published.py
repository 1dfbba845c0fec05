"""What the paper reports (Kamb & Ganguli 2025, Tables 1 and 2), to stand beside a run of the same kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elslightning.machines.registry import theory_of

STEPS = (150, 20)
"""The network's steps, in the order of the numbers below; the machines take 20."""


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables.

    Attributes:
        data, network, padding, conditional: what it is about.
        medians: by machine, the median Pearson r against the network with each of `STEPS`. With zero padding the
            paper's ELS is the one whose equivariance the border breaks, here `bbels`.
    """

    data: str
    network: str
    padding: str
    conditional: bool
    medians: dict[str, tuple[float, float]]

    def median(self, machine: str, network_steps: int) -> float | None:
        """The paper's number for a machine and a number of network steps; None if it has none."""
        if machine not in self.medians or network_steps not in STEPS:
            return None
        return self.medians[machine][STEPS.index(network_steps)]

    def text(self) -> str:
        """Which row it is, in words."""
        network = {"resnet": "ResNet", "unet": "UNet"}[self.network]
        padding = "zero" if self.padding == "zeros" else self.padding
        kind = "class-conditional" if self.conditional else "unconditional"
        return f"{TITLES[self.data]}, {kind} {network}, {padding} padding"


TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "celeba": "CelebA"}


def _row(data: str, network: str, padding: str, conditional: bool, *medians: tuple[float, float]) -> Published:
    names = (theory_of(padding), "ls", "is")
    return Published(data, network, padding, conditional, dict(zip(names, medians, strict=True)))


ROWS = (
    _row("mnist", "unet", "zeros", False, (0.89, 0.84), (0.88, 0.83), (0.70, 0.69)),
    _row("cifar10", "unet", "zeros", True, (0.90, 0.82), (0.87, 0.80), (0.41, 0.39)),
    _row("fashion_mnist", "unet", "zeros", True, (0.93, 0.91), (0.93, 0.91), (0.80, 0.80)),
    _row("celeba", "unet", "zeros", False, (0.85, 0.75), (0.90, 0.81), (0.55, 0.51)),
    _row("mnist", "resnet", "zeros", False, (0.94, 0.94), (0.82, 0.84), (0.61, 0.62)),
    _row("mnist", "resnet", "circular", False, (0.77, 0.73), (0.36, 0.33), (0.15, 0.14)),
    _row("cifar10", "resnet", "zeros", True, (0.95, 0.90), (0.90, 0.86), (0.42, 0.43)),
    _row("cifar10", "resnet", "circular", True, (0.94, 0.90), (0.83, 0.80), (0.35, 0.36)),
    _row("fashion_mnist", "resnet", "zeros", True, (0.94, 0.90), (0.88, 0.88), (0.68, 0.74)),
    _row("celeba", "resnet", "zeros", False, (0.96, 0.92), (0.90, 0.88), (0.47, 0.48)),
)


def published(setting: Callable[[str], Any]) -> Published | None:
    """The paper's row of the same data, architecture, padding and conditioning; None if it has none.

    Args:
        setting: what the run's configuration says for a key.
    """
    if setting("denoiser.attention"):
        return None  # the paper's UNet with self-attention was another's, and pretrained
    wanted = (
        setting("data.dataset"),
        str(setting("denoiser._target_")).rpartition(".")[2].lower(),
        setting("denoiser.padding_mode"),
        bool(setting("denoiser.conditional")),
    )
    return next((row for row in ROWS if (row.data, row.network, row.padding, row.conditional) == wanted), None)
