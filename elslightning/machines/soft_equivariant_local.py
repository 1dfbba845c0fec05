"""soft ELS: `EquivariantLocalScoreMachine` with a fading window and a response around the centre."""

from typing import ClassVar

from elslightning.machines.soft_pooled import SoftPooledPatchMachine


class SoftEquivariantLocalScoreMachine(SoftPooledPatchMachine):
    """`EquivariantLocalScoreMachine` with a window that fades, and a response around the centre.

    Location l has all patches of all training images, and everything wraps around the border: it commutes with circular
    shifts. A patch may not be larger than the image.

    Arguments and errors as in `SoftPooledPatchMachine`.
    """

    padding_mode: ClassVar[str] = "circular"
