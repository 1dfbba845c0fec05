"""Type aliases for the tensors every module exchanges; checked by jaxtyping and beartype in the tests."""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channel height width"]
"""Images, noisy or clean: data is scaled to [-1, 1]."""

Bank: TypeAlias = Float[Tensor, "n channel height width"] | UInt8[Tensor, "n channel height width"]
"""A training set as one tensor: floating point in [-1, 1], or bytes, where 0 … 255 stands for -1 … 1."""

AlphaBar: TypeAlias = Float64[Tensor, " batch"]
"""Signal power per image, in (0, 1)."""

Labels: TypeAlias = Int64[Tensor, " batch"]
"""Class index per image."""

Progress: TypeAlias = Callable[[str, float, float], None]
"""Called as `progress(what, done, total)` by everything that may take more than a few seconds; `done` may be
a fraction of a step."""


def no_progress(what: str, done: float, total: float) -> None:
    """The default `Progress`: silence."""
