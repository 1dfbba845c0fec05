"""LS: the local score machine."""

from typing import ClassVar

from elslightning.machines.patches import PatchMachine


class LocalScoreMachine(PatchMachine):
    """The best score that sees a P×P window, without equivariance (Kamb & Ganguli, eqs. 7-8).

    Pixel x averages the pixels x of the training images, weighted by how well the patches around x agree.
    Beyond the border both patches are zero, which adds nothing to their distance; with a patch that covers
    the image from every pixel it is the ideal score machine.

    Arguments and errors as in `PatchMachine`.
    """

    padding_mode: ClassVar[str] = "zeros"
    pooled: ClassVar[bool] = False
