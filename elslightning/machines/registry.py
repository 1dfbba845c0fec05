"""The list of all machines: what doctor, figures, reports, configuration and tests know of them.

A new machine is a file with its class, an entry here, and `conf/machines/NAME.yaml`, which names the class.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from elslightning.machines.boundary_broken import BoundaryBrokenScoreMachine
from elslightning.machines.equivariant import EquivariantScoreMachine
from elslightning.machines.equivariant_local import EquivariantLocalScoreMachine
from elslightning.machines.ideal import IdealScoreMachine
from elslightning.machines.local import LocalScoreMachine
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.mean import MeanScoreMachine
from elslightning.machines.pca import PCALocalityScoreMachine
from elslightning.machines.pspc_flex import FlexibleCropScoreMachine
from elslightning.machines.pspc_square import SquareCropScoreMachine
from elslightning.machines.smoothed import SmoothedScoreMachine
from elslightning.machines.soft_boundary_broken import SoftBoundaryBrokenScoreMachine
from elslightning.machines.soft_equivariant_local import SoftEquivariantLocalScoreMachine
from elslightning.machines.soft_local import SoftLocalScoreMachine
from elslightning.machines.tempered import TemperedScoreMachine
from elslightning.machines.wiener import WienerScoreMachine


@dataclass(frozen=True)
class Entry:
    """What there is to know of a machine.

    Attributes:
        name: in files, configurations and on the command line; letters, digits and underscores.
        machine: its class.
        label: how it is written in figures and tables.
        colour: on white, of this machine alone; Okabe and Ito's colours, which colour-blind readers can tell apart.
        on_light, on_dark: for text on a page, with enough contrast.
        baseline: whether others are held against it.
        trivial: whether it knows no more than a mean or a covariance: a floor for the theories, not one of them.
    """

    name: str
    machine: type[ScoreMachine]
    label: str
    colour: str
    on_light: str
    on_dark: str
    baseline: bool = False
    trivial: bool = False

    @property
    def local(self) -> bool:
        """Whether the machine sees patches: it takes `scales`."""
        return "scales" in inspect.signature(self.machine).parameters

    def example(self, height: int, width: int) -> dict[str, Any]:
        """Arguments beside the images with which the machine can be tried on small ones."""
        crops = torch.eye(height * width, dtype=torch.bool).reshape(-1, height, width)
        values = {"scales": 3, "temperature": 2.0, "smoothing": 0.5, "threshold": 0.5, "crops": crops}
        takes = inspect.signature(self.machine).parameters
        return {name: value for name, value in values.items() if name in takes}


ENTRIES = (
    Entry("bbels", BoundaryBrokenScoreMachine, "bbELS", "#0072B2", "#0072b2", "#56b4e9"),
    Entry("els", EquivariantLocalScoreMachine, "ELS", "#009E73", "#007a5a", "#2fc49a"),
    Entry("ls", LocalScoreMachine, "LS", "#E69F00", "#b37400", "#e6a93a"),
    Entry("es", EquivariantScoreMachine, "ES", "#CC79A7", "#a8507f", "#dc93bd"),
    Entry("soft_bbels", SoftBoundaryBrokenScoreMachine, "soft bbELS", "#003F7D", "#003f7d", "#7fa8e8"),
    Entry("soft_els", SoftEquivariantLocalScoreMachine, "soft ELS", "#00634A", "#00634a", "#5fb89a"),
    Entry("soft_ls", SoftLocalScoreMachine, "soft LS", "#A86F00", "#8a5a00", "#cf9a4a"),
    Entry("is", IdealScoreMachine, "IS", "#D55E00", "#c24e00", "#f0793a", baseline=True),
    Entry("pspc_square", SquareCropScoreMachine, "PSPC-Square", "#117733", "#117733", "#6cc285"),
    Entry("pspc_flex", FlexibleCropScoreMachine, "PSPC-Flex", "#AA4499", "#923a83", "#d889cb"),
    Entry("pca", PCALocalityScoreMachine, "PCA locality", "#56B4E9", "#1f6f9c", "#8fd0f5"),
    Entry("scfdm", SmoothedScoreMachine, "σ-CFDM", "#999933", "#6e6e1f", "#c2c25a"),
    Entry("is_tempered", TemperedScoreMachine, "tempered IS", "#882255", "#882255", "#d9719f"),
    Entry("wiener", WienerScoreMachine, "Wiener", "#332288", "#332288", "#9d90e8", trivial=True),
    Entry("mean", MeanScoreMachine, "mean", "#888888", "#5f5f5f", "#b0b0b0", trivial=True),
)
MACHINES: dict[str, type[Any]] = {entry.name: entry.machine for entry in ENTRIES}
"""The machines' classes by name: called with images (N, channel, height, width), labels (N,) or None, and what they
have beside these."""
COLOURS = {entry.name: entry.colour for entry in ENTRIES}
BASELINE: str = next(entry.name for entry in ENTRIES if entry.baseline)
TRIVIAL: frozenset[str] = frozenset(entry.name for entry in ENTRIES if entry.trivial)
PEER = "checkpoint"
"""The name under which another network stands among the machines."""
_LABELS = {entry.name: entry.label for entry in ENTRIES} | {PEER: "second network"}


def display_name(machine: str) -> str:
    """How a machine is written in figures."""
    return _LABELS.get(machine, machine)


def theory_of(padding_mode: str) -> str:
    """The local, equivariant machine of a convolutional network with this padding, "zeros" or "circular"."""
    return next(
        entry.name
        for entry in ENTRIES
        if entry.local and entry.machine.pooled and entry.machine.padding_mode == padding_mode
    )


def the_theory(machines: Iterable[str]) -> str | None:
    """The machine that reports and figures are about: the first that is neither the baseline nor trivial, or else the
    first that is not trivial, or else the first; None of none."""
    names = list(machines)
    telling = [name for name in names if name not in TRIVIAL]
    return next(iter([*(name for name in telling if name != BASELINE), *telling, *names]), None)
