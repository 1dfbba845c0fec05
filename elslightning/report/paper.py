"""The paper's figures of a run directory: which there are, and why others are not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from elslightning.data.names import class_names
from elslightning.machines.registry import BASELINE
from elslightning.report import paper_figures, paper_grids
from elslightning.report.paper_style import save_formats
from elslightning.runs.experiment import schedule_of
from elslightning.runs.layout import calibration_rows
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
    folder = run.directory / "figures" / "paper" if output is None else Path(output)
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
    if run.setting("data.dataset") != "black_white" or "samples" not in run.samples:
        raise LeftOut("only for a run of elslightning sample experiment=black_white")
    samples = run.samples["samples"]
    _check_images(samples, "samples", len(samples))
    consistency = run.summary.get("consistency")
    yield paper_figures.black_white(samples, consistency["median"] if isinstance(consistency, dict) else None)


def _receptive_field(run: Run) -> Iterator[Figure]:
    if run.gradients is None:
        raise LeftOut("there is no receptive_field.npz; elslightning calibrate checkpoint=RUN_DIR makes one")
    table = run.scales.get(run.theory or next(iter(run.scales), ""))
    yield paper_figures.receptive_field(run.gradients, schedule_of(run), table)


def _patch_size(run: Run) -> Iterator[Figure]:
    if not run.scales:
        raise LeftOut("there is no scales.json")
    yield paper_figures.patch_size(
        run.scales,
        schedule_of(run),
        evidence=list(calibration_rows(run.calibrations)),
        field=run.gradients,
        objective=str(run.setting("calibration.objective") or "cosine"),
    )


def _pairs(run: Run) -> Iterator[Figure]:
    network, machines, r, steps = _compared(run)
    assert run.theory is not None
    yield paper_grids.pairs(network, machines, r, theory=run.theory, steps=steps, names=_names(run))


def _grids(run: Run) -> Iterator[Figure]:
    network, machines, r, steps = _compared(run)
    assert run.theory is not None
    shown = {name: machines[name] for name in dict.fromkeys([run.theory, BASELINE]) if name in machines}
    yield from paper_grids.grids(network, shown, r, steps=steps, names=_names(run))


def _scatter(run: Run) -> Iterator[Figure]:
    if BASELINE not in run.theories or len(run.theories) < 2:
        raise LeftOut(f"the run did not compare a machine and {BASELINE} with a network")
    yield paper_figures.scatter(
        {steps: {name: run.values(name, steps) for name in run.theories} for steps in run.network_steps}
    )


FIGURES: dict[str, Callable[[Run], Iterator[Figure]]] = {
    "fig3_black_white": _black_white,
    "fig4a_receptive_field": _receptive_field,
    "fig4b_patch_size": _patch_size,
    "fig5_pairs": _pairs,
    "fig5_scatter": _scatter,
    "fig10_grid": _grids,
}
"""By the name of their files. Further pages of one figure have their number at the end."""


def _compared(run: Run) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Samples of the network, samples and r of every machine, and the number of steps of the network."""
    steps = run.reference_steps
    if run.theory is None or steps is None:
        raise LeftOut("the run compared no machine with a network")
    network = run.network_images(steps)
    machines = {name: run.images(name, steps) for name in run.theories}
    missing = [name for name, samples in {"the network": network, **machines}.items() if samples is None]
    if missing:
        raise LeftOut(f"samples.npz does not hold the samples of {missing[0]}")
    assert network is not None
    found = {name: samples for name, samples in machines.items() if samples is not None}
    r = {name: run.values(name, steps) for name in found}
    for name, samples in {"the network": network, **found}.items():
        _check_images(samples, name, len(run.labels()))
        if samples.shape != network.shape or len(r.get(name, network)) != len(network):
            raise LeftOut(f"samples.npz and comparison.csv are of different runs: see {name}")
    return network, found, r, steps


def _check_images(samples: np.ndarray, name: str, count: int) -> None:
    if samples.ndim != 4 or samples.shape[1] not in (1, 3) or 0 in samples.shape or len(samples) != count:
        raise LeftOut(f"samples.npz has an array of shape {samples.shape} for {name}, where there are {count} samples")
    if not np.isfinite(samples).all():
        raise LeftOut(f"samples.npz has a pixel that is not finite, of {name}")


def _names(run: Run) -> list[str] | None:
    """The class of every pair: its name if it is known, or else its number; None for an unconditional network."""
    labels = run.labels()
    if None in labels:
        return None
    known = class_names(str(run.setting("data.dataset")), run.setting("data.root"))
    return [known[label] if 0 <= label < len(known) else f"class {label}" for label in labels if label is not None]
