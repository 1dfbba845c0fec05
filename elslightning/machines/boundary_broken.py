"""bbELS: the equivariant local score machine whose equivariance zero padding breaks at the border."""

from typing import ClassVar

from elslightning.machines.pooled import PooledPatchMachine


class BoundaryBrokenScoreMachine(PooledPatchMachine):
    """The best score of a convolutional network with zero padding (Kamb & Ganguli, eq. 41 and Fig. 9).

    Pixel x averages the centres of training patches, at all locations whose patch overlaps the border just as
    the patch at x does: see `elslightning.diffusion.border.pixel_class`. Interior pixels share all interior
    locations; pixels near an edge share a line along it; corner pixels have only their own location.

    Arguments and errors as in `PooledPatchMachine`.
    """

    padding_mode: ClassVar[str] = "zeros"
