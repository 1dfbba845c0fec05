"""A finished run, read from its directory: what was measured, and what is not there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import BASELINE
from elslightning.machines.scales import load_scales
from elslightning.measurement.comparison import MEASURES, NETWORK
from elslightning.measurement.gradients import GradientField
from elslightning.runs.arrays import read_gradients, read_samples
from elslightning.runs.jobs import read_overrides
from elslightning.runs.tables import MOST, Row, read_losses, read_table
from elslightning.system.errors import InputError
from elslightning.system.files import read_config, read_json


@dataclass(frozen=True)
class Run:
    """What a run directory holds; what it lacks is empty.

    Attributes:
        directory: where it lies.
        config: of the run, unresolved; interpolations are resolved section by section, where they are needed.
        overrides: what its command line set.
        record: the content of run.json.
        summary: the content of summary.json, of a comparison or of a run of `sample`.
        comparison, consistency, calibration, receptive_field: the rows of the CSV files, with numbers as numbers.
        gradients: the network's gradients, of receptive_field.npz.
        scales: patch sizes by machine.
        losses: by name, (optimizer step, value) in order.
        samples: the arrays of samples.npz by name, (pairs, channel, height, width) in [-1, 1] each; of a run of
            `sample`, `samples` and perhaps `labels`.
    """

    directory: Path
    config: DictConfig
    overrides: list[str]
    record: dict[str, Any]
    summary: dict[str, Any]
    comparison: list[Row]
    consistency: list[Row]
    calibration: list[Row]
    receptive_field: list[Row]
    gradients: GradientField | None
    scales: dict[str, ParameterTable]
    losses: dict[str, list[tuple[int, float]]]
    samples: dict[str, np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.directory.resolve().name

    @property
    def sampled(self) -> bool:
        """Whether this is a run of `sample`, which compares nothing."""
        return "source" in self.summary or self.setting("verb") == "sample"

    @property
    def machines(self) -> list[str]:
        """All that were compared with the network, in the order of the summary."""
        return list(self.summary.get("machines", {}))

    @property
    def theories(self) -> list[str]:
        """Those among them that are machines, and not other networks."""
        return [name for name in self.machines if not _is_network(self.setting(f"machines.{name}._target_"))]

    @property
    def theory(self) -> str | None:
        """The machine that reports and figures are about: the first that is not the baseline, or else the baseline."""
        return next((name for name in self.theories if name != BASELINE), next(iter(self.theories), None))

    @property
    def network_steps(self) -> list[int]:
        """The numbers of steps that the network was sampled with."""
        return list(dict.fromkeys(row["network_steps"] for row in self.comparison))

    @property
    def steps(self) -> int | None:
        """The number of steps of the machines."""
        return self.summary.get("steps")

    @property
    def reference_steps(self) -> int | None:
        """The number of network steps that pairs are shown and sorted with: that of the machines if there is one."""
        return self.steps if self.steps in self.network_steps else next(iter(self.network_steps), None)

    def values(self, machine: str, network_steps: int, measure: str = "pearson_r") -> np.ndarray:
        """One measure of a machine for all pairs, in their order."""
        rows = [row for row in self.comparison if (row["machine"], row["network_steps"]) == (machine, network_steps)]
        return np.array([row[measure] for row in sorted(rows, key=lambda row: row["pair"])], dtype=np.float64)

    def images(self, machine: str, network_steps: int) -> np.ndarray | None:
        """The samples of a machine, of another network, or of the network itself; None if they are not kept."""
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


def _is_network(target: Any) -> bool:
    return str(target).endswith(".Checkpoint")


def read_run(directory: str | Path) -> Run:
    """Reads what there is of a run of any verb.

    Raises:
        InputError: for a directory that is none, and naming a file that cannot be read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory")
    if not any((directory / name).is_file() for name in (".hydra/config.yaml", "summary.json")):
        raise InputError(f"{directory} is no run: it has neither .hydra/config.yaml nor summary.json")
    comparison = read_table(directory / "comparison.csv")
    summary = _summary(directory / "summary.json")
    if not comparison and "source" not in summary:
        summary = {}
    compared = {(row["machine"], str(row["network_steps"])) for row in comparison}
    summarised = {(name, steps) for name, part in summary.get("machines", {}).items() for steps in part}
    if summary and compared != summarised:
        raise InputError(f"{directory / 'summary.json'} and comparison.csv are not of the same comparison")
    return Run(
        directory=directory,
        config=_config(directory / ".hydra" / "config.yaml"),
        overrides=read_overrides(directory) or [],
        record=_object(directory / "run.json"),
        summary=summary,
        comparison=comparison if summary else [],
        consistency=read_table(directory / "consistency.csv"),
        calibration=read_table(directory / "calibration.csv"),
        receptive_field=read_table(directory / "receptive_field.csv"),
        gradients=read_gradients(directory / "receptive_field.npz"),
        scales=load_scales(directory / "scales.json") if (directory / "scales.json").is_file() else {},
        losses=read_losses(directory / "metrics.csv"),
        samples=read_samples(directory / "samples.npz"),
    )


def _summary(path: Path) -> dict[str, Any]:
    content = _object(path)
    if "source" in content:
        if not _is_summary_of_samples(content):
            raise InputError(f"{path} is damaged: it is not the summary of a run of elslightning sample")
        return content
    if content and not isinstance(content.get("machines"), dict):
        raise InputError(f"{path} has no section machines")
    if content and not _is_summary(content):
        raise InputError(f"{path} is damaged: it lacks medians, or they are no numbers")
    return content


def _is_summary_of_samples(content: dict[str, Any]) -> bool:
    """Whether this is what `elslightning.measurement.result.Samples.write` writes; the consistency may be missing."""
    known = "consistency" in content
    shares = [_dict(content["consistency"]).get(part) for part in ("median", "low", "high")] if known else []
    return "machines" not in content and all(_is_number(share) for share in shares)


def _is_summary(content: dict[str, Any]) -> bool:
    """Whether this is what `elslightning.measurement.comparison.Comparison.summary` gives."""
    entries = [entry for by_steps in content["machines"].values() for entry in _values(by_steps)]
    measures = [_dict(entry).get(measure) for entry in entries for measure in MEASURES]
    numbers = [_dict(measure).get(part) for measure in measures for part in ("median", "low", "high")]
    shares = [share for entry in entries for name, share in _dict(entry).items() if name not in MEASURES]
    counts = [content.get("pairs"), content.get("steps", 0) or 0]
    return (
        bool(entries)
        and all(_is_number(number) for number in numbers)
        and all(share is None or _is_number(share) for share in shares)
        and all(isinstance(count, int) and _is_number(count) for count in counts)
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) and value else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content


def _config(path: Path) -> DictConfig:
    config = read_config(path) if path.is_file() else OmegaConf.create()
    if not isinstance(config, DictConfig):
        raise InputError(f"{path} is not a configuration")
    return config
