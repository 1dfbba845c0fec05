"""metrics.csv: what was logged of a training, a row per logged step.

Every row has a checksum, for the file grows while its training is at work, and whoever goes on with one that was killed
reads it, too.
"""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elslightning.runs.layout import MOST
from elslightning.system.errors import InputError
from elslightning.system.files import read_csv

STEP = "step"
"""The column with the optimizer step."""
LOSSES = ("train/loss", "val/loss")
"""The columns with losses."""
CHECK = "crc32"
"""The last column: a checksum of the other cells of the row."""


def checked_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its checksum; an empty cell is as good as none."""
    return {**row, CHECK: _checksum({name: str(value) for name, value in row.items() if value is not None})}


def _checksum(row: Mapping[str, str]) -> str:
    cells = sorted((name, text) for name, text in row.items() if text and name != CHECK)
    return str(zlib.crc32(repr(cells).encode()))


def _damaged(row: Mapping[str, str]) -> bool:
    """Whether a row does not have its checksum; or has one, but under a heading that is damaged itself."""
    if CHECK in row or not row:
        return CHECK in row and row[CHECK] != _checksum(row)
    *_, last = row
    return any(CHECK in name for name in row) or row[last] == _checksum({**row, last: ""})


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, of each the cells that are not empty; none if it is not there.

    Raises:
        InputError: naming the file, if it cannot be read or a row does not have its checksum; those of earlier versions
            have none.
    """
    found = []
    for number, row in enumerate(read_csv(path) if path.is_file() else (), 1):
        if _damaged(row):
            raise InputError(f"{path} is damaged or was edited: row {number} does not have its checksum")
        found.append({name: text for name, text in row.items() if text and name != CHECK})
    return found


def read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The losses of metrics.csv, by name: (optimizer step, value) in order; none if it is not there.

    Raises:
        InputError: as `read_metrics`.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(path):
        for name in LOSSES:
            try:
                point = int(row[STEP]), float(row[name])
            except (KeyError, ValueError):  # most cells are empty
                continue
            if abs(point[0]) <= MOST and math.isfinite(point[1]):
                found.setdefault(name, []).append(point)
    return found
