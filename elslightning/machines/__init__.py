"""The analytic score machines: posterior means of the training set under the constraints of a network."""

from elslightning.machines.boundary_broken import BoundaryBrokenScoreMachine
from elslightning.machines.equivariant import EquivariantScoreMachine
from elslightning.machines.equivariant_local import EquivariantLocalScoreMachine
from elslightning.machines.ideal import IdealScoreMachine
from elslightning.machines.local import LocalScoreMachine
from elslightning.machines.machine import ScoreMachine
from elslightning.machines.mean import MeanScoreMachine
from elslightning.machines.parameters import ParameterTable
from elslightning.machines.patches import PatchMachine
from elslightning.machines.pca import PCALocalityScoreMachine
from elslightning.machines.pspc_flex import FlexibleCropScoreMachine
from elslightning.machines.pspc_square import SquareCropScoreMachine
from elslightning.machines.registry import MACHINES
from elslightning.machines.scales import ScaleTable
from elslightning.machines.smoothed import SmoothedScoreMachine
from elslightning.machines.soft_boundary_broken import SoftBoundaryBrokenScoreMachine
from elslightning.machines.soft_equivariant_local import SoftEquivariantLocalScoreMachine
from elslightning.machines.soft_local import SoftLocalScoreMachine
from elslightning.machines.tempered import TemperedScoreMachine
from elslightning.machines.wiener import WienerScoreMachine

__all__ = [
    "MACHINES",
    "BoundaryBrokenScoreMachine",
    "EquivariantLocalScoreMachine",
    "EquivariantScoreMachine",
    "FlexibleCropScoreMachine",
    "IdealScoreMachine",
    "LocalScoreMachine",
    "MeanScoreMachine",
    "PCALocalityScoreMachine",
    "ParameterTable",
    "PatchMachine",
    "ScaleTable",
    "ScoreMachine",
    "SmoothedScoreMachine",
    "SoftBoundaryBrokenScoreMachine",
    "SoftEquivariantLocalScoreMachine",
    "SoftLocalScoreMachine",
    "SquareCropScoreMachine",
    "TemperedScoreMachine",
    "WienerScoreMachine",
]
