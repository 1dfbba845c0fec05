"""A finished run, read from its directory: what was measured, and what is not there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from elslightning.machines.parameters import ParameterTable
from elslightning.machines.registry import the_theory
from elslightning.machines.scales import load_scales
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.gradients import GradientField
from elslightning.measurement.names import NETWORK
from elslightning.measurement.result import Result
from elslightning.runs import contents, layout
from elslightning.runs.belonging import check_belonging
from elslightning.runs.configuration import setting
from elslightning.runs.layout import Row
from elslightning.runs.metrics import read_losses
from elslightning.runs.summaries import read_object, read_summary
from elslightning.system.arrays import read_arrays
from elslightning.system.errors import InputError
from elslightning.system.files import read_config


@dataclass(frozen=True)
class Run:
    """What a run directory holds; what it lacks is empty or None.

    Attributes:
        directory: where it lies.
        config: of the run, unresolved; interpolations are resolved section by section, where they are needed.
        overrides: what its command line set.
        record: the content of run.json.
        summary: the content of summary.json, of a comparison or of a run of `sample`.
        comparison: what was compared; images that are not kept are missing in it.
        calibrations: by machine, with all the evidence.
        receptive_field: the rows of receptive_field.csv, which runs have whose gradients are not kept.
        gradients: the network's gradients.
        scales: patch sizes by machine.
        losses: by name, (optimizer step, value) in order.
        drawn: the arrays of samples.npz of a run that compared nothing: of one of `sample`, `samples` (batch, channel,
            height, width) in [-1, 1] and perhaps `labels` (batch,).
    """

    directory: Path
    config: DictConfig
    overrides: list[str]
    record: dict[str, Any]
    summary: dict[str, Any]
    comparison: Comparison | None
    calibrations: dict[str, Calibration]
    receptive_field: list[Row]
    gradients: GradientField | None
    scales: dict[str, ParameterTable]
    losses: dict[str, list[tuple[int, float]]]
    drawn: dict[str, Tensor] = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.directory.resolve().name

    @property
    def sampled(self) -> bool:
        """Whether this is a run of `sample`, which compares nothing."""
        return "source" in self.summary or self.setting("verb") == "sample"

    @property
    def result(self) -> Result:
        """What the run found, as `elslightning.runs.writing.write` wrote it."""
        return Result(self.calibrations, self.scales, self.comparison, self.gradients, self.losses)

    @property
    def machines(self) -> list[str]:
        """All that were compared with the network."""
        return [] if self.comparison is None else self.comparison.names

    @property
    def theories(self) -> list[str]:
        """Those among them that are machines, and not other networks."""
        named = [] if self.comparison is None else self.comparison.theories
        return [name for name in named if not _is_network(self.setting(f"machines.{name}._target_"))]

    @property
    def theory(self) -> str | None:
        """The machine that reports and figures are about, see `the_theory`."""
        return the_theory(self.theories)

    @property
    def network_steps(self) -> list[int]:
        """The numbers of steps that the network was sampled with."""
        return [] if self.comparison is None else self.comparison.network_steps

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
        return (
            np.zeros(0) if self.comparison is None else self.comparison.values(machine, network_steps, measure).numpy()
        )

    @property
    def samples(self) -> dict[str, np.ndarray]:
        """The arrays of samples.npz by name."""
        arrays = self.drawn if self.comparison is None else contents.sample_arrays(self.comparison)
        return {name: array.numpy() for name, array in arrays.items()}

    def images(self, machine: str, network_steps: int) -> np.ndarray | None:
        """The samples of a machine, of another network, or of the network itself; None if they are not kept."""
        samples = self.samples
        return samples.get(machine, samples.get(f"{machine}_{network_steps}"))

    def network_images(self, network_steps: int) -> np.ndarray | None:
        """The network's samples; None if they are not kept."""
        return self.images(NETWORK, network_steps)

    def labels(self) -> list[int | None]:
        """The class of every pair; None for an unconditional network."""
        return (
            [] if self.comparison is None else [row.get("label") for row in contents.first_rows(self.comparison.rows)]
        )

    def setting(self, key: str) -> Any:
        """What the configuration says for a key; None if it says nothing or what it says cannot be resolved."""
        return setting(self.config, key)


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
    if not any((directory / name).is_file() for name in (layout.CONFIG, layout.SUMMARY)):
        raise InputError(f"{directory} is no run: it has neither {layout.CONFIG} nor {layout.SUMMARY}")
    config, scales = read_run_config(directory / layout.CONFIG), directory / layout.SCALES
    arrays = read_arrays(directory / layout.SAMPLES)
    contents.check_images(directory / layout.SAMPLES, arrays)
    summary, comparison = _comparison(directory, arrays)
    run = Run(
        directory=directory,
        config=config,
        overrides=read_overrides(directory) or [],
        record=read_object(directory / layout.RECORD),
        summary=summary,
        comparison=comparison,
        calibrations={},
        receptive_field=layout.read_table(directory / layout.RECEPTIVE_FIELD),
        gradients=contents.as_gradients(directory / layout.GRADIENTS, read_arrays(directory / layout.GRADIENTS)),
        scales=load_scales(scales) if scales.is_file() else {},
        losses=read_losses(directory / layout.METRICS),
        drawn=arrays if comparison is None else {},
    )
    path, objective = directory / layout.CALIBRATION, str(run.setting("calibration.objective") or "cosine")
    calibrations = contents.as_calibrations(path, layout.read_table(path), run.scales, objective)
    check_belonging(directory, run.summary, layout.SUMMARY)
    check_belonging(directory, run.record, layout.RECORD)
    return replace(run, calibrations=calibrations)


def started_in(directory: Path) -> Path | None:
    """The working directory that a run was started in, as Hydra wrote it; None if it did not."""
    try:
        content = read_config(directory / layout.HYDRA)
    except InputError:
        return None
    found = setting(content, "hydra.runtime.cwd") if isinstance(content, DictConfig) else None
    return Path(found) if isinstance(found, str) else None


def read_overrides(directory: Path) -> list[str] | None:
    """What the command line of the run in a directory has set, as Hydra wrote it; None if it did not.

    Raises:
        InputError: if the file is damaged.
    """
    path = directory / layout.OVERRIDES
    if not path.is_file():
        return None
    # As they stand there: one that refers to something else would be looked up in the list itself.
    content = OmegaConf.to_container(read_config(path), resolve=False)
    if not isinstance(content, list):
        raise InputError(f"{path} is not a list")
    return [str(part) for part in content]


def _comparison(directory: Path, arrays: Mapping[str, Tensor]) -> tuple[dict[str, Any], Comparison | None]:
    """The summary, and the comparison it belongs to; one without the other counts for nothing."""
    rows = layout.read_table(directory / layout.COMPARISON)
    tables = (layout.CONSISTENCY, layout.HANDOVER, layout.STEPWISE)
    consistency, handover, stepwise = (layout.read_table(directory / name) for name in tables)
    summary = read_summary(directory / layout.SUMMARY)
    if not rows and "source" not in summary:
        return {}, None
    compared = {(row["machine"], str(row["network_steps"])) for row in rows}
    summarised = {(name, steps) for name, part in summary.get("machines", {}).items() for steps in part}
    if summary and compared != summarised:
        raise InputError(f"{directory / layout.SUMMARY} and {layout.COMPARISON} are not of the same comparison")
    return summary, contents.as_comparison(rows, consistency, handover, stepwise, arrays) if rows and summary else None


def read_run_config(path: Path) -> DictConfig:
    """The configuration of a run; interpolations stay as they are, but those that ask for more than it holds cannot be
    resolved any more. Empty, if there is none.

    Raises:
        InputError: naming the file, if it is damaged.
    """
    content = OmegaConf.to_container(read_config(path), resolve=False) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a configuration")
    return OmegaConf.create(_without_resolvers(content))


def _without_resolvers(content: Any) -> Any:
    """A configuration with what refers to more than other places in it, the environment for example, in a form that
    cannot be resolved: the file may be a stranger's, and what is written of it go back there."""
    if isinstance(content, dict):
        return {key: _without_resolvers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_resolvers(value) for value in content]
    asks = isinstance(content, str) and ":" in content.partition("${")[2]
    return _NOT_RESOLVED if asks else content


_NOT_RESOLVED = "${of_the_process_that_reads_a_run_nothing_is_resolved:}"
