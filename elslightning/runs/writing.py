"""What a run found, written into its directory."""

from pathlib import Path
from typing import Any

from elslightning.machines.scales import save_scales
from elslightning.measurement.comparison import NETWORK, median_interval
from elslightning.measurement.result import Result, Samples
from elslightning.system.files import write_arrays, write_csv, write_json


def write_result(result: Result, directory: str | Path) -> list[Path]:
    """Writes what there is of scales.json, calibration.csv, receptive_field.csv and .npz, comparison.csv,
    consistency.csv, summary.json and samples.npz; returns the paths."""
    directory = Path(directory)
    written: list[Path] = []

    def place(name: str) -> Path:
        written.append(directory / name)
        return written[-1]

    if result.scales:
        save_scales(place("scales.json"), result.scales)
    if result.calibrations:
        write_csv(
            place("calibration.csv"),
            (row for name, calibration in result.calibrations.items() for row in calibration.rows(name)),
        )
    if result.gradients is not None:
        write_csv(place("receptive_field.csv"), result.gradients.rows())
        write_arrays(place("receptive_field.npz"), result.gradients.arrays())
    if result.comparison is not None:
        write_csv(place("comparison.csv"), result.comparison.rows)
        if result.comparison.consistency:
            write_csv(place("consistency.csv"), result.comparison.consistency)
        write_json(place("summary.json"), result.comparison.summary())
        networks = {NETWORK: result.comparison.network} | result.comparison.peers
        images = {f"{name}_{steps}": part for name, taken in networks.items() for steps, part in taken.items()}
        write_arrays(place("samples.npz"), images | result.comparison.machines)
    return written


def write_samples(drawn: Samples, directory: str | Path) -> list[Path]:
    """Writes samples.npz (arrays samples, labels), and for a machine summary.json; returns the paths."""
    directory = Path(directory)
    written = [directory / "samples.npz"]
    write_arrays(written[0], {"samples": drawn.samples} | ({} if drawn.labels is None else {"labels": drawn.labels}))
    if drawn.consistency is not None:
        median, low, high = median_interval(drawn.consistency)
        summary: dict[str, Any] = {"samples": len(drawn.samples), "source": drawn.source, "steps": drawn.steps}
        written.append(directory / "summary.json")
        write_json(written[-1], summary | {"consistency": {"median": median, "low": low, "high": high}})
    return written
