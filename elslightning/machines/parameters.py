"""What a theory has free: parameters and their ranges, as numbers or as tables over noise levels."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from elslightning.diffusion.border import check_patch_size
from elslightning.diffusion.shapes import AlphaBar
from elslightning.system.errors import InputError
from elslightning.system.files import write_json

LEVELS, PATCH_SIZE = "alpha_bar", "patch_size"
Table = TypeVar("Table", bound="ParameterTable")


class Range(NamedTuple):
    """The values that a parameter may have."""

    holds: Callable[[float], bool]
    words: str


RANGES = {
    "softness": Range(lambda width: width > 0, "positive, or infinite for a hard box"),
    "response": Range(lambda width: 0 <= width < math.inf, "zero or positive, and finite"),
    "temperature": Range(lambda value: 1e-6 <= value <= 1e6, "from 1e-6 to 1e6"),
    "smoothing": Range(lambda width: 0 <= width <= 1e6, "from 0 to 1e6"),
    "threshold": Range(lambda share: 0 <= share <= 1, "from 0 to 1"),
    "side": Range(lambda side: side >= 1 and float(side).is_integer(), "a whole number, at least 1"),
}
"""By parameter; a patch size is odd and positive, and parameters that are not here are any finite numbers."""
_NEARLY_CLEAN, _NEARLY_NOISE = 0.95, 1e-3
_ANY = Range(math.isfinite, "finite")


def check_parameter(name: str, value: float) -> None:
    """Raises InputError unless a parameter may have this value."""
    if name == PATCH_SIZE:
        if value != round(value, 0) or not math.isfinite(value):
            raise InputError(f"patch sizes must be whole numbers, not {value:g}")
        return check_patch_size(int(value))
    wanted = RANGES.get(name, _ANY)
    if not wanted.holds(value):
        raise InputError(f"{name} must be {wanted.words}, not {value:g}")


def _angle(alpha_bar: Tensor) -> Tensor:
    """The position of a noise level on a cosine schedule: 0 for a clean image, π/2 for pure noise."""
    return torch.atan2((1 - alpha_bar).clamp(min=0).sqrt(), alpha_bar.sqrt())


@dataclass(frozen=True, init=False, eq=False)
class ParameterTable:
    """Values of what a theory has free at given noise levels, from low to high noise.

    Between the given levels the nearest one counts, by the angle arccos(sqrt(alpha_bar)), in which the cosine
    schedule is a straight line; half-way, the one with less noise. The first and last entries also speak for
    levels beyond them by no more than the gap to their neighbour, so a table calibrated on the grid
    t = 1/T … 1 of the cosine schedule covers every t in [0, 1], and serves another schedule within that range.
    Schedules differ most at their ends: an entry below alpha_bar = 0.001, where next to nothing is left of the image,
    speaks for all that is noisier, and one above 0.95, where next to nothing is lost, for all that is less noisy.
    A table of one entry covers everything.

    Args:
        alpha_bar: signal powers in (0, 1), distinct, in any order.
        columns: by parameter, one value for each. Patch sizes are odd, positive numbers; what others may be
            says `RANGES`.

    Raises:
        InputError: for no column, columns of different lengths or without an entry, values outside their range, or
            a noise level given twice.

    >>> table = ParameterTable([0.9, 0.1], {"threshold": [0.5, 0.25]})
    >>> table.at(torch.tensor([0.85, 0.12], dtype=torch.float64), "threshold").tolist()
    [0.5, 0.25]
    """

    what: ClassVar[str] = "table of parameters"
    alpha_bar: Float64[Tensor, " entries"]
    columns: Mapping[str, Tensor]

    def __init__(
        self, alpha_bar: Sequence[float] | Tensor, columns: Mapping[str, Sequence[float] | Sequence[int] | Tensor]
    ) -> None:
        levels = torch.as_tensor(alpha_bar, dtype=torch.float64).flatten().cpu()
        if not columns:
            raise InputError(f"a {self.what} needs at least one parameter")
        given = {
            name: torch.as_tensor(column, dtype=None if name == PATCH_SIZE else torch.float64).flatten().cpu()
            for name, column in columns.items()
        }
        for name, column in given.items():
            if len(levels) != len(column) or len(levels) == 0:
                raise InputError(
                    f"a {self.what} needs one {name.replace('_', ' ')} per alpha_bar: "
                    f"it got {len(levels)} and {len(column)}"
                )
            if name == PATCH_SIZE and column.is_floating_point() and not bool((column == column.round()).all()):
                raise InputError(f"patch sizes must be whole numbers, not {column.tolist()}")
            for value in column.tolist():
                check_parameter(name, value)
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise InputError(f"the alpha_bar of a {self.what} must lie in (0, 1): {levels.tolist()}")
        if len(levels.unique()) != len(levels):
            raise InputError(f"a {self.what} gives one noise level twice")
        order = levels.argsort(descending=True)
        object.__setattr__(self, "alpha_bar", levels[order])
        kept = {name: column[order].to(_dtype(name)) for name, column in given.items()}
        object.__setattr__(self, "columns", kept)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @property
    def patch_size(self) -> Int64[Tensor, " entries"]:
        """The column of patch sizes.

        Raises:
            InputError: if there is none.
        """
        return self._column(PATCH_SIZE)

    def at(self, alpha_bar: Float64[Tensor, " batch"], name: str = PATCH_SIZE) -> Tensor:
        """The value of a parameter at each noise level, on the CPU: (batch,), int64 for patch sizes, else float64.

        Args:
            alpha_bar: (batch,) float64 in (0, 1), on any device.
            name: which parameter.

        Raises:
            InputError: for a noise level the table does not cover, and a parameter it does not have.
        """
        column = self._column(name)
        wanted, given = _angle(alpha_bar.cpu()), _angle(self.alpha_bar)
        if len(given) > 1:
            clean, pure = bool(self.alpha_bar[0] > _NEARLY_CLEAN), bool(self.alpha_bar[-1] < _NEARLY_NOISE)
            low = 0.0 if clean else float(given[0] - (given[1] - given[0]))
            high = math.pi / 2 if pure else float(given[-1] + (given[-1] - given[-2]))
            outside = (wanted < low - 1e-9) | (wanted > high + 1e-9)
            if bool(outside.any()):
                raise InputError(
                    f"the {self.what} covers alpha_bar from {math.cos(min(high, math.pi / 2)) ** 2:.3g} to "
                    f"{math.cos(max(low, 0.0)) ** 2:.6g}, not {float(alpha_bar.cpu()[outside][0]):.6g}"
                )
        distance = (wanted[:, None] - given[None, :]).abs()  # (batch, entries)
        # Half-way between two entries rounding decides; a little help for the one with less noise.
        bias = torch.arange(len(given), dtype=torch.float64) * 1e-9
        return column[(distance + bias).argmin(dim=1)]

    def _column(self, name: str) -> Tensor:
        if name not in self.columns:
            raise InputError(f"the {self.what} has no {name}; it has {', '.join(self.columns)}")
        return self.columns[name]

    def late(self: Table, alpha_bar: Float64[Tensor, " levels"]) -> Table:
        """The table that is one level late: at each of the given levels but the noisiest, the values of the next
        noisier one.

        The paper's code reads its scales like this: at step i those calibrated at step i + 1.

        Args:
            alpha_bar: (levels,) float64 in (0, 1), distinct, at least two, in any order.

        Raises:
            InputError: for fewer levels, or one that this table does not cover.
        """
        levels = alpha_bar.cpu().sort().values  # from high noise to low
        return self._of(levels[1:], {name: self.at(levels[:-1], name) for name in self.columns})

    def to_dict(self) -> dict[str, list[Any]]:
        """`alpha_bar` and the columns as lists, low to high noise; None stands for infinity, which JSON has not."""
        lists = {name: column.tolist() for name, column in self.columns.items()}
        columns = {name: [None if value == math.inf else value for value in lists[name]] for name in lists}
        return {LEVELS: self.alpha_bar.tolist(), **columns}

    @classmethod
    def _of(cls: type[Table], alpha_bar: Sequence[float] | Tensor, columns: Mapping[str, Any]) -> Table:
        """A table of this class."""
        return cls(alpha_bar, columns)

    @classmethod
    def _needed(cls) -> list[str]:
        """The columns that a file of such a table has at least."""
        return [LEVELS]

    @classmethod
    def from_dict(cls: type[Table], content: Any, place: str = "the table") -> Table:
        """The inverse of `to_dict`; `place` is named in errors.

        Raises:
            InputError: if the content is no such table.
        """
        needed = cls._needed()
        if not (isinstance(content, Mapping) and set(needed) <= content.keys()):
            raise InputError(f"{place} is not a {cls.what}: it needs the lists {' and '.join(needed)}")
        for name, column in content.items():
            if not (isinstance(column, list) and all(_is_number(value, name) for value in column)):
                raise InputError(f"{place} is not a {cls.what}: {' and '.join(content)} must be lists of numbers")
        columns = {
            name: [math.inf if value is None else value for value in column]
            for name, column in content.items()
            if name != LEVELS
        }
        try:
            return cls._of(content[LEVELS], columns)
        except (ValueError, OverflowError, RuntimeError) as error:  # torch has no number so large
            raise InputError(f"{place}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_json(path, self.to_dict())


Given: TypeAlias = float | ParameterTable
"""What a free parameter of a machine is: a number, or a table over noise levels that has it as a column."""


class Parameter:
    """One free parameter of a machine, with its values at all noise levels.

    Args:
        name: of the parameter.
        given: a number, or a table over noise levels.

    Raises:
        InputError: for a number outside its range, or a table without such a column.
    """

    def __init__(self, name: str, given: Given) -> None:
        self.name = name
        self.given = given
        if isinstance(given, ParameterTable):
            self.values = given._column(name).unique().tolist()
            """The values it has, each once."""
        else:
            check_parameter(name, given)
            self.values = [given]

    def said(self) -> str:
        """Its name and all its values: the same text for the same parameter only."""
        given = self.given
        return f"{self.name} {given.to_dict() if isinstance(given, ParameterTable) else float(given)}"

    def at(self, alpha_bar: AlphaBar) -> Tensor:
        """The value at each noise level, (batch,), on the CPU: int64 for patch sizes, else float64.

        Raises:
            InputError: for a noise level that the table does not cover.
        """
        if isinstance(self.given, ParameterTable):
            return self.given.at(alpha_bar, self.name)
        return torch.full(alpha_bar.shape, self.given, dtype=_dtype(self.name))


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name == PATCH_SIZE else torch.float64


def _is_number(value: Any, name: str) -> bool:
    """Whether an entry of a column of a file is a number; None is infinity where the parameter may be infinite."""
    if value is None:
        return name in RANGES and RANGES[name].holds(math.inf)
    return isinstance(value, int | float) and not isinstance(value, bool)
