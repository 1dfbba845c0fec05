"""The layout of a run directory: every file by its name, every column of its tables with its type.

What the classes of `measurement` hold goes into these rows, and into arrays, in `contents`.
"""

import math
from pathlib import Path
from types import NoneType
from typing import Any, NotRequired, TypedDict, get_args, get_type_hints

from elslightning.system.errors import InputError
from elslightning.system.files import read_csv

CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"
RECORD = "run.json"
JOB = "job.json"
CHECKPOINT = "checkpoints/last.ckpt"
METRICS = "metrics.csv"
SCALES = "scales.json"
CALIBRATION = "calibration.csv"
RECEPTIVE_FIELD = "receptive_field.csv"
GRADIENTS = "receptive_field.npz"
COMPARISON = "comparison.csv"
CONSISTENCY = "consistency.csv"
HANDOVER = "handover.csv"
STEPWISE = "stepwise.csv"
SUMMARY = "summary.json"
SAMPLES = "samples.npz"
NOVELTY = "novelty.csv"
ORDER = "order.csv"
CREATIVITY = "creativity.csv"
GALLERY = "gallery.html"
FIGURES = "figures"
REPORT = "report.html"
REPORT_TEXT = "report.md"
SWEEP = "sweep.csv"

Row = dict[str, Any]
MOST = 2**53
"""The greatest whole number in a file."""


class ComparisonRow(TypedDict):
    """comparison.csv: how well a machine agrees with the network on a pair, see `agreement`."""

    pair: int
    label: NotRequired[int | None]
    machine: str
    steps: int
    network_steps: int
    pearson_r: float
    pearson_r2: NotRequired[float]
    r2_score: NotRequired[float]
    cosine: NotRequired[float]
    mse: NotRequired[float]
    beyond_trivial: NotRequired[float | None]
    nearest_ratio: NotRequired[float | None]
    network_nearest_ratio: NotRequired[float | None]
    network_outside: NotRequired[float]


class ConsistencyRow(TypedDict):
    """consistency.csv: the share of a sample's pixels that are consistent with a machine, see `consistency`."""

    pair: int
    label: NotRequired[int | None]
    machine: str
    source: str
    steps: int
    consistency: float


class HandoverRow(TypedDict):
    """handover.csv: agreement when a machine goes on after so many steps of the network, see `hand_over`."""

    pair: int
    label: NotRequired[int | None]
    machine: str
    steps: int
    after: int
    pearson_r: float


class StepwiseRow(TypedDict):
    """stepwise.csv: agreement at the network's own states, see `at_states`; steps count down from their number to 1."""

    pair: int
    label: NotRequired[int | None]
    machine: str
    step: int
    alpha_bar: float
    eps_cosine: float
    x0_mse: float


class CalibrationRow(TypedDict):
    """calibration.csv: how well a setting agrees at a step, which count down from the number of steps to 1.

    What is not free in a machine is empty, and so is an infinite value.
    """

    machine: str
    step: int
    alpha_bar: float
    patch_size: int | None
    sample: int
    agreement: float
    softness: NotRequired[float | None]
    response: NotRequired[float | None]
    threshold: NotRequired[float | None]
    temperature: NotRequired[float | None]
    smoothing: NotRequired[float | None]


class ReceptiveFieldRow(TypedDict):
    """receptive_field.csv: windows that hold a share of the network's gradient, in percent, per step."""

    step: int
    alpha_bar: float
    x0_size_50: int
    x0_size_90: int
    x0_size_99: int
    eps_size_50: NotRequired[int]
    eps_size_90: NotRequired[int]
    eps_size_99: NotRequired[int]


class CreativityRow(TypedDict):
    """creativity.csv: a measure of the samples of the network or a machine, or of images, see `novelty.Novelty`."""

    name: str
    measure: str
    mean: float
    low: float
    high: float


TABLES: dict[str, Any] = {
    COMPARISON: ComparisonRow,
    CONSISTENCY: ConsistencyRow,
    HANDOVER: HandoverRow,
    STEPWISE: StepwiseRow,
    CALIBRATION: CalibrationRow,
    RECEPTIVE_FIELD: ReceptiveFieldRow,
    CREATIVITY: CreativityRow,
}
ALWAYS = (COMPARISON,)
"""Tables that have had their columns in every version; another that lacks one was written by an older version."""


def read_table(path: Path) -> list[Row]:
    """The rows of one of `TABLES`, with numbers as numbers; none if it is not there, or is of an older version.

    Raises:
        InputError: naming the file, if it is damaged.
    """
    if not path.is_file():
        return []
    table, rows = TABLES[path.name], read_csv(path)
    missing = [
        name for name in table.__annotations__ if name in table.__required_keys__ and rows and name not in rows[0]
    ]
    if missing and path.name in ALWAYS:
        raise InputError(f"{path} has no column {missing[0]}")
    if missing:
        return []
    kinds = get_type_hints(table)
    try:
        return [{name: _value(name, text, kinds.get(name, float)) for name, text in row.items()} for row in rows]
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _value(name: str, text: str, kind: Any) -> Any:
    """A cell as what its column holds; a column that this version does not know holds real numbers."""
    if kind is str:
        return text
    if NoneType in get_args(kind):
        if text == "":
            return None
        kind = next(one for one in get_args(kind) if one is not NoneType)
    value = kind(text)
    if abs(value) > MOST if kind is int else not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def read_creativity(path: Path) -> dict[str, dict[str, Row]]:
    """creativity.csv by name and measure; nothing if it is not there.

    Raises:
        InputError: naming the file, if it is damaged.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in read_table(path):
        found.setdefault(row["name"], {})[row["measure"]] = row
    return found
