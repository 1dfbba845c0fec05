"""What a measurement found: scalars to log, figures, and the files of a run directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from elslightning import figures
from elslightning.calibration import Calibration
from elslightning.comparison import BASELINE, Comparison
from elslightning.files import write_arrays, write_csv, write_json
from elslightning.scales import ScaleTable, save_scales
from elslightning.schedule import CosineSchedule


@dataclass(frozen=True)
class Result:
    """What a measurement found: calibrations and scales by machine, and the comparison, if there was one."""

    calibrations: dict[str, Calibration]
    scales: dict[str, ScaleTable]
    comparison: Comparison | None = None

    def scalars(self) -> dict[str, float]:
        """Scalars to log: `val/<machine>/pearson_r_median` and the like, for the first number of network steps;
        for the others with `/steps_<n>` before the name."""
        if self.comparison is None:
            return {}
        scalars: dict[str, float] = {}
        for machine, by_steps in self.comparison.summary()["machines"].items():
            for position, (steps, entry) in enumerate(by_steps.items()):
                prefix = f"val/{machine}" if position == 0 else f"val/{machine}/steps_{steps}"
                scalars[f"{prefix}/pearson_r_median"] = entry["pearson_r"]["median"]
                scalars[f"{prefix}/pearson_r_low"] = entry["pearson_r"]["low"]
                scalars[f"{prefix}/pearson_r_high"] = entry["pearson_r"]["high"]
                if entry["beats_is"] is not None:
                    scalars[f"{prefix}/beats_is"] = entry["beats_is"]
        for machine, table in self.scales.items():
            scalars[f"val/{machine}/patch_size_mean"] = float(table.patch_size.double().mean())
        return scalars

    def figures(self, schedule: CosineSchedule) -> dict[str, Figure]:
        """Figures by the name of their file."""
        drawn: dict[str, Figure] = {}
        if self.calibrations:
            drawn["scales"] = figures.scales(self.calibrations, schedule)
        if self.comparison is not None:
            machines = list(self.comparison.machines)
            theory = next((name for name in machines if name != BASELINE), BASELINE)
            drawn["pairs"] = figures.pairs(self.comparison, theory)
            if BASELINE in machines and theory != BASELINE:
                drawn["scatter"] = figures.scatter(self.comparison, theory)
        return drawn

    def write(self, directory: str | Path, drawn: Mapping[str, Figure]) -> list[Path]:
        """Writes what there is of scales.json, calibration.csv, comparison.csv, summary.json and samples.npz, and
        the `drawn` figures as figures/*.png; returns the paths."""
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
        if self.comparison is not None:
            write_csv(place("comparison.csv"), self.comparison.rows)
            write_json(place("summary.json"), self.comparison.summary())
            images = {f"network_{steps}": samples for steps, samples in self.comparison.network.items()}
            write_arrays(place("samples.npz"), images | self.comparison.machines)
        for name, figure in drawn.items():
            figures.save(figure, place(f"figures/{name}.png"))
        return written
