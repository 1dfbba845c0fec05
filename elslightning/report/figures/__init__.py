"""The figures: measurements in, matplotlib figures out, each in any of the three styles of `style`.

Time runs from 1 (noise) on the left to 0 (image) on the right in all of them.
"""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import BASELINE, display_name, the_theory
from elslightning.measurement.result import Result
from elslightning.report.figures.curves import handover, losses, trajectory
from elslightning.report.figures.images import black_white, class_grids, first_samples, image_rows, pairs
from elslightning.report.figures.patches import patch_size, receptive_field, scales
from elslightning.report.figures.points import consistency, scatter, side_by_side
from elslightning.report.figures.ranking import ranking, stepwise
from elslightning.report.figures.style import PAGE, PRINT, SCREEN, Style, save, save_formats, svg
from elslightning.report.figures.sweeps import sweep
from elslightning.runs.layout import FIGURES

__all__ = [
    "PAGE",
    "PRINT",
    "SCREEN",
    "Style",
    "black_white",
    "class_grids",
    "consistency",
    "display_name",
    "first_samples",
    "handover",
    "image_rows",
    "losses",
    "of_result",
    "pairs",
    "patch_size",
    "ranking",
    "receptive_field",
    "save",
    "save_all",
    "save_formats",
    "scales",
    "scatter",
    "side_by_side",
    "stepwise",
    "svg",
    "sweep",
    "trajectory",
]


def of_result(result: Result, schedule: Schedule) -> dict[str, Figure]:
    """The figures of a result for the screen, by the name of their file."""
    drawn: dict[str, Figure] = {}
    theory = the_theory(result.scales)
    if result.calibrations:
        drawn["scales"] = scales(result.scales, schedule, calibrations=result.calibrations, field=result.gradients)
    if result.gradients is not None:
        drawn["receptive_field"] = receptive_field(result.gradients, result.scales, schedule, machine=theory)
    if result.comparison is not None:
        theory = the_theory(result.comparison.names)
        assert theory is not None
        drawn["pairs"] = pairs(result.comparison, theory, count=12)
        if BASELINE in result.comparison.names and theory != BASELINE:
            drawn["scatter"] = scatter(result.comparison)
        if result.comparison.handover:
            drawn["handover"] = handover(result.comparison)
        if len(result.comparison.names) > 1:
            drawn["ranking"] = ranking(result.comparison, result.comparison.network_steps[0])
        if result.comparison.stepwise:
            drawn["stepwise"] = stepwise(result.comparison, schedule)
    return drawn


def save_all(drawn: Mapping[str, Figure], directory: str | Path) -> list[Path]:
    """Writes figures as figures/NAME.png of a run directory; returns the paths."""
    paths = [Path(directory) / FIGURES / f"{name}.png" for name in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        save(figure, path)
    return paths
