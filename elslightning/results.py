"""What a measurement found: scalars to log, figures, and the files of a run directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from elslightning import figures
from elslightning.calibration import Calibration
from elslightning.comparison import BASELINE, MEASURES, NETWORK, Comparison, median_interval
from elslightning.files import write_arrays, write_csv, write_json
from elslightning.receptive_field import GradientField
from elslightning.scales import ScaleTable, save_scales
from elslightning.schedule import CosineSchedule


@dataclass(frozen=True)
class Result:
    """What a measurement found: calibrations and scales by machine, and, if there were any, the comparison and the
    network's own receptive field."""

    calibrations: dict[str, Calibration]
    scales: dict[str, ScaleTable]
    comparison: Comparison | None = None
    gradients: GradientField | None = None

    def scalars(self) -> dict[str, float]:
        """Scalars to log: `val/<machine>/pearson_r_median` and the like, for the first number of network steps;
        for the others with `/steps_<n>` before the name."""
        if self.comparison is None:
            return {}
        scalars = summary_scalars(self.comparison.summary())
        for machine, table in self.scales.items():
            scalars[f"val/{machine}/patch_size_mean"] = float(table.patch_size.double().mean())
        return scalars

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """Points (step, patch size) by machine, from the step with the least noise, number 1, to that with the most."""
        return {
            machine: [(float(step), float(size)) for step, size in enumerate(table.patch_size.tolist(), start=1)]
            for machine, table in self.scales.items()
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
                rows[pair, steps][NETWORK] = figures.as_bytes(self.comparison.network[steps][pair])
            rows[pair, steps][name] = figures.as_bytes(self.comparison.samples(name, steps)[pair])
            rows[pair, steps] |= {f"{name}/{measure}": row[measure] for measure in MEASURES}
        return list(rows.values())

    @property
    def objective(self) -> float | None:
        """The median Pearson r of the first machine, for sweepers to maximise; None without a comparison."""
        medians = [value for name, value in self.scalars().items() if name.endswith("/pearson_r_median")]
        return medians[0] if medians else None

    def text(self) -> str:
        """What a run prints: the table of the comparison, or else what calibration found."""
        if self.comparison is not None:
            return f"\n{self.comparison.table()}\n"
        lines = [
            f"{name}: patch sizes from noise to image: {table.patch_size.flip(0).tolist()}"
            for name, table in self.scales.items()
        ]
        if self.gradients is not None:
            sizes = self.gradients.size(0.9).tolist()
            lines.append(f"network: windows with 90 % of the gradient of x0, from noise to image: {sizes}")
        return "\n".join(lines)

    def figures(self, schedule: CosineSchedule) -> dict[str, Figure]:
        """Figures by the name of their file."""
        drawn: dict[str, Figure] = {}
        if self.calibrations:
            drawn["scales"] = figures.scales(self.calibrations, schedule)
        if self.gradients is not None:
            drawn["receptive_field"] = figures.receptive_field(self.gradients, self.scales, schedule)
        if self.comparison is not None:
            machines = self.comparison.names
            theory = next((name for name in machines if name != BASELINE), BASELINE)
            drawn["pairs"] = figures.pairs(self.comparison, theory)
            if BASELINE in machines and theory != BASELINE:
                drawn["scatter"] = figures.scatter(self.comparison, theory)
        return drawn

    def write(self, directory: str | Path, drawn: Mapping[str, Figure]) -> list[Path]:
        """Writes what there is of scales.json, calibration.csv, receptive_field.csv and .npz, comparison.csv,
        consistency.csv, summary.json and samples.npz, and the `drawn` figures as figures/*.png; returns the paths."""
        directory = Path(directory)
        written: list[Path] = []

        def place(name: str) -> Path:
            written.append(directory / name)
            return written[-1]

        if self.scales:
            save_scales(place("scales.json"), self.scales)
        if self.calibrations:
            write_csv(
                place("calibration.csv"),
                (row for name, calibration in self.calibrations.items() for row in calibration.rows(name)),
            )
        if self.gradients is not None:
            write_csv(place("receptive_field.csv"), self.gradients.rows())
            write_arrays(place("receptive_field.npz"), self.gradients.arrays())
        if self.comparison is not None:
            write_csv(place("comparison.csv"), self.comparison.rows)
            if self.comparison.consistency:
                write_csv(place("consistency.csv"), self.comparison.consistency)
            write_json(place("summary.json"), self.comparison.summary())
            networks = {NETWORK: self.comparison.network} | self.comparison.peers
            images = {f"{name}_{steps}": part for name, taken in networks.items() for steps, part in taken.items()}
            write_arrays(place("samples.npz"), images | self.comparison.machines)
        for name, figure in drawn.items():
            figures.save(figure, place(f"figures/{name}.png"))
        return written


def summary_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """The scalars to log of a summary, see `elslightning.comparison.Comparison.summary` and `Result.scalars`."""
    scalars: dict[str, float] = {}
    for machine, by_steps in summary["machines"].items():
        for position, (steps, entry) in enumerate(by_steps.items()):
            prefix = f"val/{machine}" if position == 0 else f"val/{machine}/steps_{steps}"
            scalars[f"{prefix}/pearson_r_median"] = entry["pearson_r"]["median"]
            scalars[f"{prefix}/pearson_r_low"] = entry["pearson_r"]["low"]
            scalars[f"{prefix}/pearson_r_high"] = entry["pearson_r"]["high"]
            for share in ("beats_is", "share_of_ceiling", "consistency", "network_consistency"):
                if entry[share] is not None:
                    scalars[f"{prefix}/{share}"] = entry[share]
    return scalars


@dataclass(frozen=True)
class Samples:
    """What was drawn from one network or machine.

    Attributes:
        source: its name.
        steps: steps of the reverse process.
        samples: (batch, channel, height, width).
        labels: (batch,) int64 or None.
        consistency: (batch,) the share of consistent pixels, see `elslightning.consistency`; None for a network.
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

    def write(self, directory: str | Path) -> list[Path]:
        """Writes samples.npz (arrays samples, labels), the first 64 as figures/samples.png, and for a machine
        summary.json; returns the paths."""
        directory = Path(directory)
        written = [directory / "samples.npz", directory / "figures" / "samples.png"]
        write_arrays(written[0], {"samples": self.samples} | ({} if self.labels is None else {"labels": self.labels}))
        rows = {f"{start}": part for start, part in zip(range(0, 64, 8), self.samples[:64].split(8), strict=False)}
        figures.save(figures.image_rows(rows), written[1])
        if self.consistency is not None:
            median, low, high = median_interval(self.consistency)
            summary: dict[str, Any] = {"samples": len(self.samples), "source": self.source, "steps": self.steps}
            written.append(directory / "summary.json")
            write_json(written[-1], summary | {"consistency": {"median": median, "low": low, "high": high}})
        return written
