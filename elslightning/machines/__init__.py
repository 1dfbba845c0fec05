"""The analytic score machines: posterior means of the training set under the constraints of a network."""

from elslightning.machines.boundary_broken import BoundaryBrokenScoreMachine
from elslightning.machines.ideal import IdealScoreMachine
from elslightning.machines.local import LocalScoreMachine
from elslightning.machines.machine import PatchMachine, ScoreMachine

__all__ = [
    "BoundaryBrokenScoreMachine",
    "IdealScoreMachine",
    "LocalScoreMachine",
    "PatchMachine",
    "ScoreMachine",
]
