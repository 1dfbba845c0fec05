"""bbELS: the equivariant local score machine whose equivariance zero padding breaks at the border."""

import torch
from torch import Tensor

from elslightning.boundary import interior
from elslightning.machines.machine import PatchMachine, Region


class BoundaryBrokenScoreMachine(PatchMachine):
    """The best score of a convolutional network with zero padding (Kamb & Ganguli, eq. 41 and Fig. 9).

    Pixel x averages the centres of training patches, at all locations whose patch overlaps the border just as
    the patch at x does: see `elslightning.boundary.pixel_class`. Interior pixels share all interior
    locations; pixels near an edge share a line along it; corner pixels have only their own location.

    Arguments and errors as in `PatchMachine`.
    """

    def _regions(self, patch_size: int) -> list[Region]:
        height, width = self.images.shape[2:]
        return [
            Region(rows, columns, pool_rows, pool_columns)
            for rows, pool_rows in self._axis(height, patch_size // 2)
            for columns, pool_columns in self._axis(width, patch_size // 2)
        ]

    def _axis(self, length: int, radius: int) -> list[tuple[Tensor, bool]]:
        """The interior indices of an axis, which are pooled, and the others, which are not; if there are any."""
        indices = torch.arange(length, device=self.images.device)
        inner = indices[interior(length, radius)]
        outer = indices[~torch.isin(indices, inner)]
        return [(part, pooled) for part, pooled in ((inner, True), (outer, False)) if len(part)]
