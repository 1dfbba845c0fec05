"""A finished run, read from its directory: what was measured, and what is not there."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.comparison import BASELINE, NETWORK
from elslightning.errors import InputError
from elslightning.files import read_json
from elslightning.receptive_field import GradientField
from elslightning.scales import ScaleTable, load_scales

Row = dict[str, Any]

_WHOLE = ("pair", "label", "steps", "network_steps", "step", "patch_size", "sample")
_COLUMNS = {
    "comparison.csv": ("pair", "machine", "steps", "network_steps", "pearson_r"),
    "calibration.csv": ("machine", "step", "alpha_bar", "patch_size", "sample", "agreement"),
}


@dataclass(frozen=True)
class Run:
    """What a run directory holds; what it lacks is empty.

    Attributes:
        directory: where it lies.
        config: of the run, unresolved; interpolations are resolved section by section, where they are needed.
        summary: the content of summary.json.
        comparison, calibration: the rows of the CSV files, with numbers as numbers.
        gradients: the network's gradients, of receptive_field.npz.
        scales: patch sizes by machine.
        samples: the arrays of samples.npz by name, (pairs, channel, height, width) in [-1, 1] each; of a run of
            `sample`, `samples` and `labels`.
    """

    directory: Path
    config: DictConfig
    summary: dict[str, Any]
    comparison: list[Row]
    calibration: list[Row]
    gradients: GradientField | None
    scales: dict[str, ScaleTable]
    samples: dict[str, np.ndarray] = field(repr=False)

    @property
    def machines(self) -> list[str]:
        """All that were compared with the network, in their order."""
        return list(dict.fromkeys(row["machine"] for row in self.comparison))

    @property
    def theories(self) -> list[str]:
        """Those among them that are machines, and not other networks."""
        networks = [
            name for name in self.machines if str(self.setting(f"machines.{name}._target_")).endswith(".Checkpoint")
        ]
        return [name for name in self.machines if name not in networks]

    @property
    def theory(self) -> str | None:
        """The machine that figures are about: the first that is not the baseline, or else the baseline."""
        return next((name for name in self.theories if name != BASELINE), next(iter(self.theories), None))

    @property
    def network_steps(self) -> list[int]:
        """The numbers of steps that the network was sampled with."""
        return list(dict.fromkeys(row["network_steps"] for row in self.comparison))

    @property
    def steps(self) -> int | None:
        """The number of steps of the machines."""
        return next((row["steps"] for row in self.comparison if row["machine"] in self.theories), None)

    @property
    def reference_steps(self) -> int | None:
        """The number of network steps that pairs are shown and sorted with: that of the machines if there is one."""
        return self.steps if self.steps in self.network_steps else next(iter(self.network_steps), None)

    def values(self, machine: str, network_steps: int, measure: str = "pearson_r") -> np.ndarray:
        """One measure of a machine for all pairs, in their order."""
        rows = [row for row in self.comparison if (row["machine"], row["network_steps"]) == (machine, network_steps)]
        return np.array([row[measure] for row in sorted(rows, key=lambda row: row["pair"])], dtype=np.float64)

    def images(self, machine: str, network_steps: int) -> np.ndarray | None:
        """The samples of a machine, or of another network; None if they are not kept."""
        return self.samples.get(machine, self.samples.get(f"{machine}_{network_steps}"))

    def network_images(self, network_steps: int) -> np.ndarray | None:
        """The network's samples; None if they are not kept."""
        return self.samples.get(f"{NETWORK}_{network_steps}")

    def labels(self) -> list[int | None]:
        """The class of every pair; None for an unconditional network."""
        return [label for _, label in sorted({row["pair"]: row.get("label") for row in self.comparison}.items())]

    def setting(self, key: str) -> Any:
        """What the configuration says for a key; None if it says nothing or what it says cannot be resolved."""
        try:
            value = OmegaConf.select(self.config, key)
            return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
        except OmegaConfBaseException:
            return None


def read_run(directory: str | Path) -> Run:
    """Reads what there is of a run of any verb.

    Raises:
        InputError: for a directory that is none, and naming a file that cannot be read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory")
    config, summary = directory / ".hydra" / "config.yaml", directory / "summary.json"
    if not config.is_file() and not summary.is_file():
        raise InputError(f"{directory} is no run: it has neither .hydra/config.yaml nor summary.json")
    return Run(
        directory=directory,
        config=_config(config),
        summary=_object(summary),
        comparison=_rows(directory / "comparison.csv"),
        calibration=_rows(directory / "calibration.csv"),
        gradients=_gradients(directory / "receptive_field.npz"),
        scales=load_scales(directory / "scales.json") if (directory / "scales.json").is_file() else {},
        samples=_arrays(directory / "samples.npz"),
    )


def _config(path: Path) -> DictConfig:
    if not path.is_file():
        return OmegaConf.create()
    try:
        content = OmegaConf.load(path)
    except (OSError, OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, DictConfig):
        raise InputError(f"{path} is not a configuration")
    return content


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content


def _rows(path: Path) -> list[Row]:
    """The rows of a table; none if it is not there."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        missing = [name for name in _COLUMNS[path.name] if rows and name not in rows[0]]
        if missing:
            raise InputError(f"{path} has no column {missing[0]}")
        return [{name: _value(name, text) for name, text in row.items()} for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _value(name: str, text: str | None) -> Any:
    if name == "machine":
        return text
    if name == "label" and text == "":
        return None
    value = int(text or "") if name in _WHOLE else float(text or "")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def _gradients(path: Path) -> GradientField | None:
    arrays = _arrays(path)
    if not arrays:
        return None
    shapes: Sequence[tuple[int, ...]] = [arrays[name].shape for name in arrays if name != "formal"]
    if not {"alpha_bar", "gradient", "x0_gradient"} <= arrays.keys() or len({shape[:1] for shape in shapes}) != 1:
        raise InputError(f"{path} does not hold the gradients of a network")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    formal = int(tensors["formal"]) if "formal" in tensors else None
    return GradientField(tensors["alpha_bar"], tensors["gradient"], tensors["x0_gradient"], formal)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
