"""Statistics of the mosaics of a run: how much of a sample is one training image."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.registry import display_name
from elslightning.measurement.mosaic import Memorisation, memorisation
from elslightning.report.page.plan import candidate_count, ranks
from elslightning.report.page.tables import Table, share
from elslightning.runs.experiment import Experiment
from elslightning.runs.run import Run

COLUMNS: dict[str, tuple[Callable[[Memorisation], Tensor], Callable[[float], str]]] = {
    "tiles": (lambda found: found.mosaic.tiles, lambda value: f"{value:g}"),
    "pixels per tile": (lambda found: found.mosaic.mean_size, lambda value: f"{value:.1f}"),
    "largest tile": (lambda found: found.mosaic.largest_share, share),
    "training images": (lambda found: found.mosaic.images, lambda value: f"{value:g}"),
    "from one image": (lambda found: found.share, share),
    "r with nearest image": (lambda found: found.pearson_r, lambda value: f"{value:.3f}"),
}
"""Columns: what is measured of every sample, and how its median is written."""


def mosaics(run: Run, experiment: Experiment, *, work: float = 2e10, progress: Progress = no_progress) -> Table | None:
    """Medians over pairs for the samples of the theory and of the network; None if no samples are kept.

    Args:
        run: a run with a comparison.
        experiment: what it compared.
        work: candidates that may be weighed in all; where all pairs would need more, some are taken, evenly spread
            over their agreement.
        progress: told of every image.

    Raises:
        InputError: as `elslightning.measurement.mosaic.memorisation`.
    """
    name, steps = run.theory, run.reference_steps
    assert name is not None
    assert steps is not None
    machine, r = experiment.machines[name], run.values(name, steps)
    sources = {display_name(name): run.images(name, steps)}
    sources |= {f"network, {count} steps": run.network_images(count) for count in run.network_steps}
    kept = {source: images for source, images in sources.items() if images is not None}
    if not kept:
        return None
    each = candidate_count(experiment, machine) * experiment.bank[0].numel() * len(kept)
    count = min(len(r), max(1, int(work / each)))
    indices = np.argsort(-r, kind="stable")[ranks(len(r), count)]
    labels = None if experiment.labels is None else experiment.labels[torch.from_numpy(indices)]
    table = Table(
        f"Medians over {len(indices)} of {len(r)} pairs, by the patches of {display_name(name)}.", ["", *COLUMNS]
    )
    for source, images in kept.items():
        samples = torch.from_numpy(images[indices])
        found = memorisation(machine, samples, machine.select_labels(labels), progress=progress)
        values = [float(np.median(measure(found).numpy())) for measure, _ in COLUMNS.values()]
        written = [write(value) for value, (_, write) in zip(values, COLUMNS.values(), strict=True)]
        table.rows.append([source, *written])
    return table
