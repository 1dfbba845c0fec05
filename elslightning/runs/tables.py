"""The tables of a run directory: rows with numbers as numbers."""

import math
from pathlib import Path
from typing import Any

from elslightning.system.errors import InputError
from elslightning.system.files import read_csv

Row = dict[str, Any]

WHOLE = ("pair", "label", "steps", "network_steps", "step", "patch_size", "sample")
"""Columns of whole numbers; the others that are read hold real numbers, but for those of `NAMES`."""
NAMES = ("machine", "source")
"""Columns of text."""
MOST = 2**53
"""The greatest whole number in a table."""
COLUMNS = {
    "comparison.csv": ("pair", "machine", "steps", "network_steps", "pearson_r"),
    "consistency.csv": ("pair", "machine", "source", "steps", "consistency"),
    "calibration.csv": ("machine", "step", "alpha_bar", "patch_size", "sample", "agreement"),
    "receptive_field.csv": ("step", "alpha_bar", "x0_size_50", "x0_size_90", "x0_size_99"),
}
"""What a table must have to be of use."""
ALWAYS = ("comparison.csv",)
"""Tables that have had their columns in every version; another that lacks one was written by an older version."""


def read_table(path: Path) -> list[Row]:
    """The rows of one of the tables of `COLUMNS`; none if it is not there, or is of an older version.

    Raises:
        InputError: naming the file, if it is damaged.
    """
    if not path.is_file():
        return []
    rows = read_csv(path)
    missing = [name for name in COLUMNS[path.name] if rows and name not in rows[0]]
    if missing and path.name in ALWAYS:
        raise InputError(f"{path} has no column {missing[0]}")
    if missing:
        return []
    try:
        return [{name: _value(name, text) for name, text in row.items()} for row in rows]
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _value(name: str, text: str) -> Any:
    if name in NAMES:
        return text
    if name == "label" and text == "":
        return None
    value = int(text) if name in WHOLE else float(text)
    if abs(value) > MOST if name in WHOLE else not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The losses of metrics.csv, by name: (optimizer step, value) in order; none if it is not there.

    Raises:
        InputError: naming the file, if it cannot be read.
    """
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_csv(path):
        for name in ("train/loss", "val/loss"):
            try:
                point = int(row["step"]), float(row[name])
            except (KeyError, ValueError):  # most cells are empty
                continue
            if abs(point[0]) <= MOST and math.isfinite(point[1]):
                found.setdefault(name, []).append(point)
    return found
