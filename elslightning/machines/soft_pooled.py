"""SoftPooledPatchMachine: soft machines whose pixels share candidates, all looked at or as many as it takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.distributed as dist

from elslightning.diffusion.shapes import Bank, Labels
from elslightning.machines.drawing import Drawing
from elslightning.machines.estimating import EXACT, Form
from elslightning.machines.parameters import Given, ParameterTable
from elslightning.machines.soft import SoftPatchMachine
from elslightning.machines.windows import GradientWindows

TINY = 2.0**-24
"""A response that is not above this part of the greatest is lost in float32, and left out."""


class SoftPooledPatchMachine(Drawing, SoftPatchMachine):
    """A soft patch machine that pools locations, exact or with an error bar.

    With draws, all that is drawn for some pixels side by side paints what these respond to, and the errors of what a
    pixel is painted with add up as those of independent draws.

    Args:
        images, labels, scales, softness, response, windows, memory_budget, process_group, own_images: as in
            `SoftPatchMachine`.
        accuracy, seed, index: as in `PooledPatchMachine`.

    Raises:
        InputError: as in `SoftPatchMachine` and `PooledPatchMachine`.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
        softness: Given | None = None,
        response: Given | None = None,
        windows: GradientWindows | str | Path | None = None,
        accuracy: float | str = EXACT,
        seed: int = 0,
        index: str | Path | None = None,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images,
            labels,
            scales=scales,
            softness=softness,
            response=response,
            windows=windows,
            memory_budget=memory_budget,
            process_group=process_group,
            own_images=own_images,
        )
        self._draw(accuracy, seed, index)

    def _form(self, setting: Sequence[float]) -> Form:
        radius, window, response = self._of(setting)
        answered = [value for value in response if value > TINY]
        whole = (np.array([*taps[:0:-1], *taps], np.float32) for taps in (window, answered))
        return Form(2 * radius + 1, *whole)
