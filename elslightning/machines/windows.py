"""Windows that fade, by the distance from their centre: as Gaussians, or as a network's gradients do."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from elslightning.diffusion.shapes import AlphaBar
from elslightning.machines.parameters import LEVELS, ParameterTable
from elslightning.system.arrays import read_arrays
from elslightning.system.errors import InputError

GRADIENT, PLACE = "x0_gradient", "level"


def gaussian(width: float, radius: int) -> Tensor:
    """exp(-Δ² / (2 width²)) for the distances Δ = 0 … radius, (radius + 1,) float64; infinite width gives ones, width 0
    the first only."""
    distance = torch.arange(radius + 1, dtype=torch.float64)
    if width == 0:
        return (distance == 0).double()
    return (-0.5 * (distance / width).square()).exp()


class GradientWindows:
    """Windows as wide, at every noise level, as what a network looks at.

    Of the mean absolute gradients G of a network's x0 at one pixel, g(k) is the mean of the four k pixels from it along
    its row and its column, over G at the pixel itself. A pixel at the offset Δ from the centre then counts

        q(Δ) = (g(|Δ_row|) g(|Δ_column|))^(1 / softness) ,

    so that a softness of 1 takes the gradients as they are, a greater one wider windows, and an infinite one a box.
    Beyond what was measured q is 0. A gradient is not a precision: it is the precision times how the candidates' pixels
    vary together, and falls faster.

    Args:
        alpha_bar: (level,) signal powers in (0, 1); between them the nearest counts, as in a `ParameterTable`.
        gradient: (level, height, width) not negative, with its centre, where it is positive, at
            (height // 2, width // 2): the `x0_gradient` of `gradient_field`.

    Raises:
        InputError: for other shapes, and numbers outside these ranges.
    """

    def __init__(self, alpha_bar: Sequence[float] | Tensor, gradient: Float[Tensor, "level height width"]) -> None:
        finite = bool(gradient.isfinite().all()) and bool((gradient >= 0).all())
        row, column = gradient.shape[1] // 2, gradient.shape[2] // 2
        if not finite or 0 in gradient.shape or not bool((gradient[:, row, column] > 0).all()):
            raise InputError(
                "windows of gradients need finite numbers that are not negative, (level, height, width), and positive "
                f"at the centre; these are of shape {tuple(gradient.shape)}"
            )
        self._levels = ParameterTable(alpha_bar, {PLACE: torch.arange(len(gradient))})
        rays = [gradient[:, row, column:], gradient[:, row, : column + 1].flip(1)]
        rays += [gradient[:, row:, column], gradient[:, : row + 1, column].flip(1)]
        longest = max(ray.shape[1] for ray in rays)
        at = [torch.stack([ray[:, k] for ray in rays if k < ray.shape[1]]).double().mean(dim=0) for k in range(longest)]
        self.profiles: Float64[Tensor, "level distance"] = (torch.stack(at, dim=1) / at[0][:, None]).cpu()

    @classmethod
    def read(cls, path: str | Path) -> "GradientWindows":
        """Those of a run's receptive_field.npz.

        Raises:
            InputError: naming the file, if it is not there, damaged or something else.
        """
        if not Path(path).is_file():
            raise InputError(f"windows: there is no file {path}; they are a run's receptive_field.npz")
        held = read_arrays(Path(path))
        if not held.keys() >= {LEVELS, GRADIENT} or held[GRADIENT].ndim != 3:
            raise InputError(
                f"{path} does not hold the gradients of a network: windows are a run's receptive_field.npz"
            )
        try:
            return cls(held[LEVELS], held[GRADIENT].float())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def place_at(self, alpha_bar: AlphaBar) -> Float64[Tensor, " batch"]:
        """Which level's windows count at each noise level.

        Raises:
            InputError: for a noise level that they do not cover.
        """
        return self._levels.at(alpha_bar, PLACE).double()

    def taps(self, place: int, softness: float, radius: int) -> Float64[Tensor, " distance"]:
        """The weights of a window along an axis at the distances 0 … radius, 1 at the centre."""
        profile = torch.zeros(radius + 1, dtype=torch.float64)
        known = self.profiles[place, : radius + 1]
        profile[: len(known)] = known
        return profile ** (0.0 if math.isinf(softness) else 1 / softness)

    def to_dict(self) -> dict[str, list[float] | list[list[float]]]:
        """All that they are, as plain values."""
        return {LEVELS: self._levels.alpha_bar.tolist(), "profiles": self.profiles.tolist()}
