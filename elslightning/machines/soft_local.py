"""soft LS: `LocalScoreMachine` with a fading window and a response around the centre."""

from typing import ClassVar

from elslightning.machines.soft import SoftPatchMachine


class SoftLocalScoreMachine(SoftPatchMachine):
    """`LocalScoreMachine` with a window that fades, and a response around the centre.

    Location l has the patches at its own place of every training image: the best score that sees a fading window,
    without equivariance. With a hard box over the image from every pixel it is the ideal score machine, whatever the
    response.

    Arguments and errors as in `SoftPatchMachine`.
    """

    padding_mode: ClassVar[str] = "zeros"
    pooled: ClassVar[bool] = False
