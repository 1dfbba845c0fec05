"""ScaleTable: which patch size a local machine uses at which noise level, and the files of all machines' tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import LEVELS, PATCH_SIZE, RANGES, ParameterTable
from elslightning.system.errors import InputError
from elslightning.system.files import read_json, write_json
from elslightning.system.torchfiles import read_plain


@dataclass(frozen=True, init=False, eq=False)
class ScaleTable(ParameterTable):
    """Patch sizes at given noise levels, from low to high noise: a `ParameterTable` that has these at least.

    Args:
        alpha_bar: signal powers in (0, 1), distinct, in any order.
        patch_size: one odd, positive patch size for each.
        further: columns of other parameters, if any.

    Raises:
        InputError: as `ParameterTable`.

    >>> import torch
    >>> table = ScaleTable([0.9, 0.5, 0.1], [3, 5, 7])
    >>> table.at(torch.tensor([0.85, 0.12], dtype=torch.float64)).tolist()
    [3, 7]
    """

    what: ClassVar[str] = "scale table"

    def __init__(
        self,
        alpha_bar: Sequence[float] | Tensor,
        patch_size: Sequence[int] | Tensor,
        further: Mapping[str, Sequence[float] | Tensor] | None = None,
    ) -> None:
        super().__init__(alpha_bar, {PATCH_SIZE: patch_size, **(further or {})})

    @classmethod
    def _of(cls, alpha_bar: Sequence[float] | Tensor, columns: Mapping[str, Any]) -> "ScaleTable":
        return cls(alpha_bar, columns[PATCH_SIZE], {name: columns[name] for name in columns if name != PATCH_SIZE})

    @classmethod
    def _needed(cls) -> list[str]:
        return [LEVELS, PATCH_SIZE]

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
        return cls.from_dict(tables[machine].to_dict(), f"{path}, {machine}")

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


def save_scales(path: str | Path, tables: Mapping[str, ParameterTable]) -> None:
    """Writes the tables of several machines to one JSON file: `{machine: {alpha_bar, patch_size, …}}`."""
    write_json(path, {name: table.to_dict() for name, table in tables.items()})


def load_scales(path: str | Path) -> dict[str, ParameterTable]:
    """The tables of a file written by `save_scales`; those with patch sizes are a `ScaleTable`.

    Raises:
        InputError: if the file is missing or foreign.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is not a file of scale tables, one per machine")
    return {name: _table(table, f"{path}, {name}") for name, table in content.items()}


def _table(content: Any, place: str) -> ParameterTable:
    further = isinstance(content, Mapping) and PATCH_SIZE not in content and not RANGES.keys().isdisjoint(content)
    return (ParameterTable if further else ScaleTable).from_dict(content, place)
