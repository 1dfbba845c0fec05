"""ELS: the equivariant local score machine."""

from typing import ClassVar

from elslightning.machines.pooled import PooledPatchMachine


class EquivariantLocalScoreMachine(PooledPatchMachine):
    """The best score that sees a P×P window and commutes with circular shifts (Kamb & Ganguli, eqs. 9-10, 39-40).

    Pixel x averages the centres of all patches of all training images, at every location. Patches wrap around
    the border, of the noisy image and of the training images alike: the theory of a convolutional network with
    circular padding.

    Arguments and errors as in `PooledPatchMachine`; a patch may not be larger than the image.
    """

    padding_mode: ClassVar[str] = "circular"
