"""soft bbELS: `BoundaryBrokenScoreMachine` with a fading window and a response around the centre."""

from typing import ClassVar

from elslightning.machines.soft_pooled import SoftPooledPatchMachine


class SoftBoundaryBrokenScoreMachine(SoftPooledPatchMachine):
    """`BoundaryBrokenScoreMachine` with a window that fades, and a response around the centre.

    Location l has the training patches at all locations whose P×P patch overlaps the border as its own does.

    Arguments and errors as in `SoftPooledPatchMachine`.
    """

    padding_mode: ClassVar[str] = "zeros"
