"""How weights lie in memory: while a network is trained on a CPU, with the channels of a pixel side by side.

Convolutions are quicker so (`benchmarks/training.py`), and round differently: whatever is measured has weights as
whoever loads them has them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def lay_side_by_side(module: nn.Module) -> None:
    """Weights of convolutions with the channels of a pixel side by side."""
    module.to(memory_format=torch.channels_last)


def lay_as_loaded(module: nn.Module) -> None:
    """All weights row by row."""
    for part in (*module.parameters(), *module.buffers()):
        # Not `is_contiguous` and `to`: of a single channel they leave strides that convolutions take for the other.
        if part.stride() != torch.empty(part.shape, device="meta").stride():
            part.data = part.data.clone(memory_format=torch.contiguous_format)


@contextmanager
def laid_as_loaded(module: nn.Module) -> Iterator[None]:
    """All weights row by row meanwhile, and then the very tensors of before."""
    before = [(part, part.data) for part in (*module.parameters(), *module.buffers())]
    lay_as_loaded(module)
    try:
        yield
    finally:
        for part, data in before:
            part.data = data
