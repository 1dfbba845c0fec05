"""LS: the local score machine."""

import torch

from elslightning.machines.machine import PatchMachine, Region


class LocalScoreMachine(PatchMachine):
    """The best score that sees a P×P window, without equivariance (Kamb & Ganguli, eqs. 7-8).

    Pixel x averages the pixels x of the training images, weighted by how well the patches around x agree.
    Beyond the border both patches are zero, which adds nothing to their distance; with a patch that covers
    the image from every pixel it is the ideal score machine.

    Arguments and errors as in `PatchMachine`.
    """

    def _regions(self, patch_size: int) -> list[Region]:
        height, width = self.images.shape[2:]
        device = self.images.device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        return [Region(rows, columns, pool_rows=False, pool_columns=False)]
