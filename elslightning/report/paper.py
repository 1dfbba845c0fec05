"""The paper's figures of a run directory: which there are, and why others are not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from elslightning.machines.registry import BASELINE, the_theory
from elslightning.measurement.comparison import Comparison
from elslightning.report import figures
from elslightning.report.classes import names_of
from elslightning.report.figures import PRINT, save_formats
from elslightning.runs import layout
from elslightning.runs.experiment import schedule_of
from elslightning.runs.run import Run, read_run
from elslightning.system.errors import InputError


class LeftOut(Exception):
    """Why a figure cannot be drawn, in a few words."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: two for every figure, PNG and PDF.
        left_out: why, by figure.
    """

    files: list[Path]
    left_out: dict[str, str]

    def text(self) -> str:
        """What to print: a line per figure."""
        lines = [f"figure: {path} and {path.with_suffix('.pdf').name}" for path in self.files if path.suffix == ".png"]
        return "\n".join([*lines, *(f"left out: {name}: {why}" for name, why in self.left_out.items())])


def write_figures(directory: str | Path, output: str | Path | None = None) -> Written:
    """Draws the paper's figures of a run, those it has data for, as PNG and PDF.

    Args:
        directory: of a run of any verb.
        output: folder to write to; None takes figures/paper of the run.

    Raises:
        InputError: for a directory that is no run, a file in it that cannot be read, a schedule that cannot be built, a
            run without data for any figure, and a folder that cannot be written to.
    """
    run = read_run(directory)
    folder = run.directory / layout.FIGURES / "paper" if output is None else Path(output)
    files: list[Path] = []
    left_out: dict[str, str] = {}
    for name, draw in FIGURES.items():
        try:
            for page, figure in enumerate(draw(run), start=1):
                files += save_formats(figure, folder / (name if page == 1 else f"{name}_{page}"))
        except LeftOut as reason:
            left_out[name] = str(reason)
        except OSError as error:
            raise InputError(f"cannot write the figures to {folder}: {error.strerror}") from error
    if not files:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"{run.directory} has data for no figure: {reasons}")
    return Written(files, left_out)


def _black_white(run: Run) -> Iterator[Figure]:
    if run.setting("data.dataset") != "black_white" or "samples" not in run.drawn:
        raise LeftOut("only for a run of elslightning sample experiment=black_white")
    samples = run.drawn["samples"]
    _check_images(samples, "samples", len(samples))
    consistency = run.summary.get("consistency")
    median = consistency["median"] if isinstance(consistency, dict) else None
    yield figures.black_white(samples, median, style=PRINT)


def _receptive_field(run: Run) -> Iterator[Figure]:
    if run.gradients is None:
        raise LeftOut("there is no receptive_field.npz; elslightning calibrate checkpoint=RUN_DIR makes one")
    machine = run.theory if run.theory in run.scales else the_theory(run.scales)
    yield figures.receptive_field(
        run.gradients, run.scales, schedule_of(run), machine=machine, windows=False, style=PRINT
    )


def _patch_size(run: Run) -> Iterator[Figure]:
    if not run.scales:
        raise LeftOut("there is no scales.json")
    yield figures.patch_size(
        run.scales, schedule_of(run), calibrations=run.calibrations, field=run.gradients, style=PRINT
    )


def _pairs(run: Run) -> Iterator[Figure]:
    comparison, theory, steps = _compared(run)
    yield figures.pairs(comparison, theory, steps=steps, classes=_names(run), style=PRINT)


def _grids(run: Run) -> Iterator[Figure]:
    comparison, theory, steps = _compared(run)
    yield from figures.class_grids(comparison, theory, steps=steps, classes=_names(run), style=PRINT)


def _scatter(run: Run) -> Iterator[Figure]:
    if run.comparison is None or BASELINE not in run.theories or len(run.theories) < 2:
        raise LeftOut(f"the run did not compare a machine and {BASELINE} with a network")
    yield figures.scatter(run.comparison, run.theories, style=PRINT)


def _ranking(run: Run) -> Iterator[Figure]:
    if run.comparison is None or run.reference_steps is None or len(run.comparison.names) < 2:
        raise LeftOut("the run compared no two machines with a network")
    yield figures.ranking(run.comparison, run.reference_steps, style=PRINT)


def _stepwise(run: Run) -> Iterator[Figure]:
    if run.comparison is None or not run.comparison.stepwise:
        raise LeftOut("only for a run with comparison.stepwise=true")
    yield figures.stepwise(run.comparison, schedule_of(run), style=PRINT)


FIGURES: dict[str, Callable[[Run], Iterator[Figure]]] = {
    "fig3_black_white": _black_white,
    "fig4a_receptive_field": _receptive_field,
    "fig4b_patch_size": _patch_size,
    "fig5_pairs": _pairs,
    "fig5_scatter": _scatter,
    "fig10_grid": _grids,
    "ranking": _ranking,
    "stepwise": _stepwise,
}
"""By the name of their files. Further pages of one figure have their number at the end."""


def _compared(run: Run) -> tuple[Comparison, str, int]:
    """What was compared, with all its images; the theory; and the number of steps of the network."""
    comparison, theory, steps = run.comparison, run.theory, run.reference_steps
    if comparison is None or theory is None or steps is None:
        raise LeftOut("the run compared no machine with a network")
    images: dict[str, Tensor | None] = {"the network": comparison.network.get(steps)}
    images |= {name: comparison.machines.get(name, comparison.peers.get(name, {}).get(steps)) for name in run.machines}
    for name, samples in images.items():
        if samples is None:
            raise LeftOut(f"samples.npz does not hold the samples of {name}")
        _check_images(samples, name, len(comparison.values(theory, steps)))
        if samples.shape[1:] != comparison.network[steps].shape[1:]:
            raise LeftOut(f"samples.npz and comparison.csv are of different runs: see {name}")
    return comparison, theory, steps


def _check_images(samples: Tensor, name: str, count: int) -> None:
    shape = tuple(samples.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape or len(samples) != count:
        raise LeftOut(f"samples.npz has an array of shape {shape} for {name}, where there are {count} samples")
    if not bool(samples.isfinite().all()):
        raise LeftOut(f"samples.npz has a pixel that is not finite, of {name}")


def _names(run: Run) -> list[str] | None:
    """The class of every pair: its name if it is known, or else its number; None for an unconditional network."""
    labels = run.labels()
    if None in labels:
        return None
    known = names_of(run)
    return [known[label] if 0 <= label < len(known) else f"class {label}" for label in labels if label is not None]
