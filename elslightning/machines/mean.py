"""mean: the machine that knows nothing but the average."""

from collections.abc import Sequence

import torch.distributed as dist

from elslightning.diffusion.shapes import AlphaBar, Bank, Images, Labels
from elslightning.machines.chunks import Chunks
from elslightning.machines.kernels import Partial
from elslightning.machines.moments import MomentMachine, sure


class MeanScoreMachine(MomentMachine):
    """The mean of the training images, or of those of the class, whatever the noisy image: `x0_hat = mean`.

    All machines tend to a mean with noise, and the ideal one to this one. What a theory explains beyond it is worth
    more than what it explains: every comparison should have this row. After the first call for a class it costs
    nothing.

    Arguments and errors as in `ScoreMachine`.
    """

    def __init__(
        self,
        images: Bank,
        labels: Labels | None = None,
        *,
        memory_budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        own_images: bool = False,
    ) -> None:
        super().__init__(
            images, labels, memory_budget=memory_budget, process_group=process_group, own_images=own_images
        )
        self.components = 0

    def _image_bytes(self, x_t: Images, patch_sizes: Sequence[int]) -> int:
        return 8 * 8 * x_t[0].numel()

    def _partials(self, x_t: Images, alpha_bar: AlphaBar, chunks: Chunks, patch_sizes: Sequence[int]) -> list[Partial]:
        moments = self._moments[chunks.label]
        chunks.skip()
        return [sure(moments.mean.expand(len(x_t), -1), moments.number, x_t)]
