"""PooledPatchMachine: patch machines whose pixels share candidates, all of them looked at, or as many as it takes."""

from pathlib import Path

import torch.distributed as dist

from elslightning.diffusion.shapes import Bank, Labels
from elslightning.machines.drawing import Drawing
from elslightning.machines.estimating import EXACT
from elslightning.machines.parameters import ParameterTable


class PooledPatchMachine(Drawing):
    """A patch machine that pools locations, exact or with an error bar.

    Args:
        images, labels, scales, memory_budget, process_group, own_images: as in `PatchMachine`.
        accuracy: "exact"; or the standard error of x0 that is enough, in (0, 1], as the root mean square over the
            pixels of an image that share candidates: then candidates are drawn, see
            `elslightning.machines.approximate`, and `estimate` says how well each pixel is known; or "auto", which is
            0.05 for banks so large that this is quicker, and exact otherwise. Draws are made on the CPU, also where the
            bank is on a GPU.
        seed: of the draws; the same seed, images and noise level make the same draws.
        index: a folder that indices are kept in, for later processes with the very same bank: 12 bytes a candidate and
            patch size. It may be shared, and removed at any time. None keeps them in memory, as long as the process.

    Raises:
        InputError: as in `PatchMachine`; for an accuracy that is none, or one with a shard of a bank; and for an index
            that can be no folder.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        scales: int | ParameterTable,
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
            memory_budget=memory_budget,
            process_group=process_group,
            own_images=own_images,
        )
        self._draw(accuracy, seed, index)
