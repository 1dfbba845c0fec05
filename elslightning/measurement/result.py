"""What a measurement found: scalars to log, figures, and the files of a run directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from elslightning.diffusion.pixels import as_bytes
from elslightning.machines.parameters import PATCH_SIZE, ParameterTable
from elslightning.measurement.agreement import MEASURES, median_interval
from elslightning.measurement.alarms import alarms
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.gradients import GradientField
from elslightning.measurement.names import NETWORK

SHARES = (
    "beats_is",
    "share_of_ceiling",
    "consistency",
    "network_consistency",
    "beyond_share_of_ceiling",
    "memorised",
)
"""The shares of a summary that are logged."""
_NAMES = {PATCH_SIZE: "patch sizes"}


@dataclass(frozen=True)
class Result:
    """What a measurement found: calibrations and scales by machine, and, if there were any, the comparison and the
    network's own receptive field; and the losses of its training by name, (optimizer step, value) each, as far as they
    are known."""

    calibrations: dict[str, Calibration]
    scales: dict[str, ParameterTable]
    comparison: Comparison | None = None
    gradients: GradientField | None = None
    losses: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """Scalars to log: `val/<machine>/pearson_r_median` and the like, for the first number of network steps;
        for the others with `/steps_<n>` before the name."""
        if self.comparison is None:
            return {}
        scalars = summary_scalars(self.comparison.summary())
        for machine, table in self.scales.items():
            for name, column in table.columns.items():
                if bool(column.isfinite().all()):
                    scalars[f"val/{machine}/{name}_mean"] = float(column.double().mean())
        return scalars

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """Points (step, patch size) by machine, from the step with the least noise, number 1, to that with the most."""
        return {
            machine: [(float(step), float(size)) for step, size in enumerate(table.patch_size.tolist(), start=1)]
            for machine, table in self.scales.items()
            if PATCH_SIZE in table.columns
        }

    def pair_table(self, seed: int) -> list[dict[str, Any]]:
        """A row per pair and number of network steps: the images side by side, and every measure of every machine.

        Args:
            seed: of the noise; that of pair i is the i-th that was drawn from it.
        """
        if self.comparison is None:
            return []
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for row in self.comparison.rows:
            pair, steps, name = row["pair"], row["network_steps"], row["machine"]
            if (pair, steps) not in rows:
                rows[pair, steps] = {"pair": pair, "noise_seed": seed, "label": row["label"], "network_steps": steps}
                rows[pair, steps][NETWORK] = as_bytes(self.comparison.network[steps][pair])
            rows[pair, steps][name] = as_bytes(self.comparison.samples(name, steps)[pair])
            rows[pair, steps] |= {f"{name}/{measure}": row[measure] for measure in MEASURES}
        return list(rows.values())

    @property
    def objective(self) -> float | None:
        """The median Pearson r of the first machine, for sweepers to maximise; None without a comparison."""
        medians = [value for name, value in self.scalars().items() if name.endswith("/pearson_r_median")]
        return medians[0] if medians else None

    def text(self) -> str:
        """What a run prints: the table of the comparison and, before it, what turns its headline over; or else what
        calibration found."""
        if self.comparison is not None:
            said = "".join(f"{line}\n\n" for line in alarms(self.comparison.summary(), self.losses))
            return f"\n{said}{self.comparison.table()}\n"
        lines = [
            f"{name}: {_NAMES.get(parameter, parameter)} from noise to image: {column.flip(0).tolist()}"
            for name, table in self.scales.items()
            for parameter, column in table.columns.items()
        ]
        if self.gradients is not None:
            sizes = self.gradients.size(0.9).tolist()
            lines.append(f"network: windows with 90 % of the gradient of x0, from noise to image: {sizes}")
        return "\n".join(lines)


def summary_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """The scalars to log of a summary, see `Comparison.summary` and `Result.scalars`."""
    scalars: dict[str, float] = {}
    for machine, by_steps in summary["machines"].items():
        for position, (steps, entry) in enumerate(by_steps.items()):
            prefix = f"val/{machine}" if position == 0 else f"val/{machine}/steps_{steps}"
            scalars[f"{prefix}/pearson_r_median"] = entry["pearson_r"]["median"]
            scalars[f"{prefix}/pearson_r_low"] = entry["pearson_r"]["low"]
            scalars[f"{prefix}/pearson_r_high"] = entry["pearson_r"]["high"]
            for measure in ("beyond_trivial", "difference", "corrected_r", "replica_r", "sample_error"):
                if entry.get(measure) is not None:
                    scalars[f"{prefix}/{measure}_median"] = entry[measure]["median"]
            for share in SHARES:
                if entry.get(share) is not None:
                    scalars[f"{prefix}/{share}"] = entry[share]
    for position, (steps, entry) in enumerate(summary.get("network", {}).items()):
        prefix = "val/network" if position == 0 else f"val/network/steps_{steps}"
        scalars |= {f"{prefix}/{share}": value for share, value in entry.items() if value is not None}
    return scalars


@dataclass(frozen=True)
class Samples:
    """What was drawn from one network or machine.

    Attributes:
        source: its name.
        steps: steps of the reverse process.
        samples: (batch, channel, height, width).
        labels: (batch,) int64 or None.
        consistency: (batch,) the share of consistent pixels, see `consistency`; None for a network.
    """

    source: str
    steps: int
    samples: Tensor
    labels: Tensor | None
    consistency: Tensor | None

    @property
    def objective(self) -> float | None:
        """The median share of consistent pixels; None for a network."""
        return None if self.consistency is None else float(self.consistency.quantile(0.5))

    def text(self) -> str:
        """What a run prints: the consistency of a machine's samples."""
        if self.consistency is None:
            return ""
        median, low, high = median_interval(self.consistency)
        return (
            f"{self.source}: {median:.1%} of a sample's pixels are the centre of the nearest training patch "
            f"(median of {len(self.samples)} samples, 95 % interval {low:.1%} … {high:.1%})"
        )
