"""ScaleTable: which patch size a local machine uses at which noise level."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from elslightning.diffusion.border import check_patch_size
from elslightning.diffusion.schedule import Schedule
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, write_json
from elslightning.system.torchfiles import read_plain


def _angle(alpha_bar: Tensor) -> Tensor:
    """The position of a noise level on a cosine schedule: 0 for a clean image, π/2 for pure noise."""
    return torch.atan2((1 - alpha_bar).clamp(min=0).sqrt(), alpha_bar.sqrt())


@dataclass(frozen=True, init=False, eq=False)
class ScaleTable:
    """Patch sizes at given noise levels, from low to high noise.

    Between the given levels the nearest one counts, by the angle arccos(sqrt(alpha_bar)), in which the cosine
    schedule is a straight line; half-way, the one with less noise. The first and last entries also speak for
    levels beyond them by no more than the gap to their neighbour, so a table calibrated on the grid
    t = 1/T … 1 covers every t in [0, 1]. A table of one entry covers everything.

    Args:
        alpha_bar: signal powers in (0, 1), distinct, in any order.
        patch_size: one odd, positive patch size for each.

    Raises:
        InputError: for lists of different lengths or none at all, values outside their range, or a noise level
            given twice.

    >>> table = ScaleTable([0.9, 0.5, 0.1], [3, 5, 7])
    >>> table.at(torch.tensor([0.85, 0.12], dtype=torch.float64)).tolist()
    [3, 7]
    """

    alpha_bar: Float64[Tensor, " entries"]
    patch_size: Int64[Tensor, " entries"]

    def __init__(self, alpha_bar: Sequence[float] | Tensor, patch_size: Sequence[int] | Tensor) -> None:
        levels = torch.as_tensor(alpha_bar, dtype=torch.float64).flatten().cpu()
        sizes = torch.as_tensor(patch_size).flatten().cpu()
        if len(levels) != len(sizes) or len(levels) == 0:
            raise InputError(f"a scale table needs one patch size per alpha_bar: it got {len(levels)} and {len(sizes)}")
        if sizes.is_floating_point() and not bool((sizes == sizes.round()).all()):
            raise InputError(f"patch sizes must be whole numbers, not {sizes.tolist()}")
        for size in sizes.tolist():
            check_patch_size(int(size))
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise InputError(f"the alpha_bar of a scale table must lie in (0, 1): {levels.tolist()}")
        if len(levels.unique()) != len(levels):
            raise InputError("a scale table gives one noise level twice")
        order = levels.argsort(descending=True)
        object.__setattr__(self, "alpha_bar", levels[order])
        object.__setattr__(self, "patch_size", sizes[order].long())

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def at(self, alpha_bar: Float64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        """The patch size at each noise level, on the CPU.

        Args:
            alpha_bar: (batch,) float64 in (0, 1), on any device.

        Raises:
            InputError: for a noise level the table does not cover.
        """
        wanted, given = _angle(alpha_bar.cpu()), _angle(self.alpha_bar)
        if len(given) > 1:
            low = given[0] - (given[1] - given[0])
            high = given[-1] + (given[-1] - given[-2])
            outside = (wanted < low - 1e-9) | (wanted > high + 1e-9)
            if bool(outside.any()):
                raise InputError(
                    f"the scale table covers alpha_bar from {math.cos(min(float(high), math.pi / 2)) ** 2:.3g} to "
                    f"{math.cos(max(float(low), 0.0)) ** 2:.6g}, not {float(alpha_bar.cpu()[outside][0]):.6g}"
                )
        distance = (wanted[:, None] - given[None, :]).abs()  # (batch, entries)
        # Half-way between two entries rounding decides; a little help for the one with less noise.
        bias = torch.arange(len(given), dtype=torch.float64) * 1e-9
        return self.patch_size[(distance + bias).argmin(dim=1)]

    def late(self, alpha_bar: Float64[Tensor, " levels"]) -> "ScaleTable":
        """The table that is one level late: at each of the given levels but the noisiest, the patch size of the next
        noisier one.

        The paper's code reads its scales like this: at step i those calibrated at step i + 1.

        Args:
            alpha_bar: (levels,) float64 in (0, 1), distinct, at least two, in any order.

        Raises:
            InputError: for fewer levels, or one that this table does not cover.
        """
        levels = alpha_bar.cpu().sort().values  # from high noise to low
        return ScaleTable(levels[1:], self.at(levels[:-1]))

    def to_dict(self) -> dict[str, list[Any]]:
        """`alpha_bar` and `patch_size` as lists, low to high noise."""
        return {"alpha_bar": self.alpha_bar.tolist(), "patch_size": self.patch_size.tolist()}

    @classmethod
    def from_dict(cls, content: Any, place: str = "the scale table") -> "ScaleTable":
        """The inverse of `to_dict`; `place` is named in errors.

        Raises:
            InputError: if the content is not a scale table.
        """
        if not (isinstance(content, Mapping) and {"alpha_bar", "patch_size"} <= content.keys()):
            raise InputError(f"{place} is not a scale table: it needs the lists alpha_bar and patch_size")
        columns = [content["alpha_bar"], content["patch_size"]]
        if not all(
            isinstance(column, list)
            and all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
            for column in columns
        ):
            raise InputError(f"{place} is not a scale table: alpha_bar and patch_size must be lists of numbers")
        try:
            return cls(*columns)
        except (ValueError, OverflowError, RuntimeError) as error:  # torch has no number so large
            raise InputError(f"{place}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path, machine: str | None = None) -> "ScaleTable":
        """Reads a table: a file of one table, or the table of `machine` in a file that has one per machine.

        Raises:
            InputError: if the file is missing, foreign, or lacks the machine.
        """
        if machine is None:
            return cls.from_dict(read_json(path), str(path))
        tables = load_scales(path)
        if machine not in tables:
            raise InputError(f"{path} has no scales for {machine}; it has {', '.join(tables)}")
        return tables[machine]

    @classmethod
    def from_official(cls, path: str | Path, schedule: Schedule) -> "ScaleTable":
        """Reads a scale file of the paper's code: a list of T patch sizes, position j for the time (j + 1) / T.

        The file is a pickle, of `torch.save` or alone; it is read as data, and nothing in it runs.

        Args:
            path: the file.
            schedule: gives the noise level at a time.

        Raises:
            InputError: if the file is missing, damaged, or anything else.
        """
        sizes = read_plain(path)
        if not isinstance(sizes, list) or not sizes or not all(type(size) is int for size in sizes):
            raise InputError(f"{path} is not a scale file of the paper's code: it holds no list of whole numbers")
        try:
            return cls(schedule.noise_levels(len(sizes)), sizes[::-1])
        except (ValueError, OverflowError, RuntimeError) as error:  # torch has no number so large
            raise InputError(f"{path}: {error}") from error


def save_scales(path: str | Path, tables: Mapping[str, ScaleTable]) -> None:
    """Writes the tables of several machines to one JSON file: `{machine: {alpha_bar, patch_size}}`."""
    write_json(path, {name: table.to_dict() for name, table in tables.items()})


def load_scales(path: str | Path) -> dict[str, ScaleTable]:
    """The tables of a file written by `save_scales`.

    Raises:
        InputError: if the file is missing or foreign.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is not a file of scale tables, one per machine")
    return {name: ScaleTable.from_dict(table, f"{path}, {name}") for name, table in content.items()}
