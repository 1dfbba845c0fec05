"""Embeddings of time and class: vectors, broadcast over pixels, so that no position is preferred."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elslightning.diffusion.shapes import Labels
from elslightning.system.errors import InputError

TIME_EMBEDDINGS = ("paper", "mlp")


def sinusoids(t: Float[Tensor, " batch"], dim: int) -> Float[Tensor, "batch dim"]:
    """`[sin(arg), cos(arg)]` with `arg_k = t / 10000^(k / (dim/2 - 1))`, k = 0 … dim/2 - 1."""
    half = dim // 2
    exponents = torch.arange(half, device=t.device, dtype=t.dtype) / (half - 1)
    arguments = t[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([arguments.sin(), arguments.cos()], dim=1)


class TimeClassEmbedding(nn.Module):
    """The sum of a time embedding and, when conditional, a class embedding.

    Args:
        dim: length of the vector; even, at least 4.
        num_classes: number of classes, or None for an unconditional network.
        kind: "paper" takes the sinusoids of t itself, as the paper's code does: over t in [0, 1] all but the
            first few of them hardly change. "mlp" takes the sinusoids of 1000 t through two linear layers.

    Raises:
        InputError: for an odd or too small `dim`, an unknown kind, or no classes.
    """

    def __init__(self, dim: int, num_classes: int | None, kind: str = "paper") -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise InputError(f"a time embedding needs an even length of at least 4, not {dim}")
        if kind not in TIME_EMBEDDINGS:
            raise InputError(f"time_embedding must be one of {', '.join(TIME_EMBEDDINGS)}, not {kind!r}")
        if num_classes is not None and num_classes < 1:
            raise InputError(f"a conditional network needs at least 1 class, not {num_classes}")
        self.dim = dim
        self.num_classes = num_classes
        self.time_scale = 1.0 if kind == "paper" else 1000.0
        self.time = (
            nn.Identity() if kind == "paper" else nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        )
        self.classes = None if num_classes is None else nn.Embedding(num_classes, dim)

    def forward(self, t: Float[Tensor, " batch"], labels: Labels | None) -> Float[Tensor, "batch dim"]:
        """The embedding of times t in [0, 1] and of labels, which are given exactly when there are classes.

        Raises:
            InputError: for a label outside the classes.
        """
        embedding = self.time(sinusoids(t * self.time_scale, self.dim))
        if self.classes is None or labels is None:
            return embedding
        if self.num_classes is not None and not bool(((labels >= 0) & (labels < self.num_classes)).all()):
            raise InputError(f"labels must lie in 0 … {self.num_classes - 1}, not {labels.min()} … {labels.max()}")
        return embedding + self.classes(labels)
