"""Where a network stands between recall and invention: its samples and the theory's beside images held out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elslightning.diffusion.schedule import Schedule
from elslightning.diffusion.shapes import Progress, no_progress
from elslightning.machines.canvas import Canvas
from elslightning.machines.patches import PatchMachine
from elslightning.machines.registry import display_name
from elslightning.measurement.names import NETWORK
from elslightning.measurement.novelty import ENDS, Reference
from elslightning.measurement.order import Order, order_parameter
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map, image_points, machine_point, order_curve
from elslightning.report.page import tables
from elslightning.report.page.plan import ranks
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.tables import Table
from elslightning.runs.experiment import Experiment
from elslightning.runs.run import Run

MOST = 32
"""Samples of each that are measured."""
FOLLOWED = 2
"""Samples whose order parameter is measured on the way."""
HELDOUT = "held-out images"
MEASURES = {
    "novelty": "novelty",
    "memorised": "memorised",
    "fidelity": "fidelity",
    "patch_precision": "patch precision",
    "patch_recall": "patch recall",
    "consistency": "consistent",
    "diversity": "diversity",
}
"""Columns of the table."""


@dataclass(frozen=True)
class Standing:
    """What is measured of a run's samples and of the controls.

    Attributes:
        found: by name, the summary of `elslightning.measurement.novelty.Novelty`.
        machines: which of the names are machines.
        samples: how many of each were measured.
        orders: the order parameter of some of the network's processes and of the theory's, by its windows;
            nothing where the theory copies no single patches.
        schedule: gives their times.
    """

    found: Mapping[str, Mapping[str, Mapping[str, float]]]
    machines: list[str]
    samples: int
    orders: Mapping[str, Order] = field(default_factory=dict)
    schedule: Schedule | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The rows of creativity.csv: a measure of a name each, with its mean and interval."""
        return [
            {"name": name, "measure": measure, **{end: entry[end] for end in ENDS}}
            for name, summary in self.found.items()
            for measure, entry in summary.items()
        ]

    def points(self) -> list[dict[str, Any]]:
        """The points of the creativity map."""
        found = []
        for name, summary in self.found.items():
            if name == NETWORK:
                found.append(machine_point(name, "", summary, "the network"))
            elif name in self.machines:
                found.append(machine_point(name, "", summary))
            else:
                found.append(image_points(name, summary))
        return found

    def sentence(self) -> str:
        """Where the network stands."""
        own, mark = self.found[NETWORK], self.found[HELDOUT]
        new = {-1: "less new than", 0: "as new as", 1: "newer than"}[_against(own["novelty"], mark["novelty"])]
        measure = "fidelity" if "fidelity" in own and "fidelity" in mark else "patch_precision"
        alike = {-1: "less", 0: "just as much", 1: "more"}[_against(own[measure], mark[measure])]
        share, other = tables.share(own[measure]["mean"]), tables.share(mark[measure]["mean"])
        by_class = "a classifier of these images is sure of them by"
        kept = f"{by_class} {share}" if measure == "fidelity" else f"{share} of its patches are like training patches"
        return (
            f"This network's samples are {new} images held out, and {alike} like the training images: "
            f"{tables.share(own['novelty']['mean'])} of a sample's pixels come from other images than the main one "
            f"(held out: {tables.share(mark['novelty']['mean'])}), {kept} (held out: {other}), and "
            f"{tables.share(own['memorised']['mean'])} of the samples are training images again."
        )


def _against(one: Mapping[str, float], mark: Mapping[str, float]) -> int:
    """-1, 0 or 1: whether an interval lies below another, overlaps it, or lies above."""
    return int(one["low"] > mark["high"]) - int(one["high"] < mark["low"])


def standing(
    run: Run, experiment: Experiment, *, work: float = 2e10, progress: Progress = no_progress
) -> Standing | None:
    """Measures the samples that a run has kept of its network and its machines, and the controls.

    Args:
        run: a run with a comparison.
        experiment: what it compared.
        work: candidates that may be weighed in all; fewer samples are measured where all would need more.
        progress: told of every image.

    Returns:
        None where no samples are kept, or no images are held out.
    """
    steps, heldout = run.reference_steps, experiment.heldout
    if steps is None or heldout is None or len(heldout) < 2 or len(experiment.bank) < 2:
        return None
    kept = {NETWORK: run.network_images(steps)}
    kept |= {name: run.images(name, steps) for name in run.machines if name in experiment.machines}
    images = {name: array for name, array in kept.items() if array is not None}
    if NETWORK not in images:
        return None
    total = len(images[NETWORK])
    each = experiment.bank.numel() * experiment.bank[0, 0].numel() * (len(images) + 4)
    count = min(MOST, total, max(2, int(work / each)))
    chosen = torch.tensor(ranks(total, count)) if count > 1 else torch.zeros(1, dtype=torch.int64)
    theory = None if run.theory is None else experiment.machines.get(run.theory)
    circular = getattr(theory, "padding_mode", "zeros") == "circular"
    labels = None if experiment.labels is None else experiment.labels.cpu()[chosen]
    reference = Reference(experiment.bank, experiment.bank_labels, circular=circular)
    found = {
        name: reference.measure(torch.from_numpy(np.asarray(array))[chosen], labels, progress=progress).summary()
        for name, array in images.items()
    }
    for name, controls in reference.controls(heldout, len(chosen)).items():
        found[name] = reference.measure(controls, progress=progress).summary()
    orders = _orders(run, experiment, chosen[:FOLLOWED], progress)
    return Standing(found, [name for name in images if name != NETWORK], len(chosen), orders, experiment.schedule)


def _orders(run: Run, experiment: Experiment, chosen: Tensor, progress: Progress) -> dict[str, Order]:
    """The order parameter on the way to some samples of the network and of the theory."""
    theory = None if run.theory is None else experiment.machines.get(run.theory)
    if not isinstance(theory, PatchMachine) or not theory.attributable or run.steps is None:
        return {}
    noise = experiment.noise[chosen]
    labels = None if experiment.labels is None else experiment.labels[chosen]
    assert run.theory is not None
    guides = {display_name(run.theory): None, "network": experiment.network}
    return {
        name: order_parameter(
            Canvas(theory), noise, experiment.schedule, run.steps, labels, guide=guide, progress=progress
        )
        for name, guide in guides.items()
        if name != "network" or guide is not None
    }


def section(found: Standing | None, complaint: str) -> Section:
    """The section of a report, or why there is none."""
    title = "Creativity"
    if found is None:
        said = complaint.replace("There is no explorer", "Creativity is not measured")
        return Section("creativity", title, said or "Creativity is not measured: no samples, or no images held out.")
    table = Table(
        f"Means with 95 % bootstrap intervals, of {found.samples} samples or images each.", ["", *MEASURES.values()]
    )
    for name, summary in found.found.items():
        cells = [
            f"{tables.number(summary[key]['mean'])} ({tables.interval(dict(summary[key]))})" if key in summary else "–"
            for key in MEASURES
        ]
        table.rows.append([display_name(name), *cells])
    chart = Chart(
        figures.svg(creativity_map, found.points()),
        "Up: like the training images. Right: new. The star is where held-out images stand.",
        "The numbers are in the table.",
    )
    text = (
        "Novelty is the share of pixels that do not come from the training image that most of them come from. Images "
        "that were held out are the mark: they are as new as an image of this kind can be, and are of this kind."
    )
    charts, texts = [chart], [found.sentence(), text]
    if found.orders and found.schedule is not None:
        drawn = figures.svg(order_curve, found.orders, found.schedule)
        count = next(iter(found.orders.values())).effective.shape[1]
        charts.append(Chart(drawn, "Where pixels decide, from noise to image.", "Order over time, see the text."))
        texts.append(
            "Order is 1 where a pixel is decided, by the theory's windows, and 0 where it has as many effective "
            "candidates as there are training images. Who decides with most pixels in one image memorises; who decides "
            f"with pixels in many creates. Medians and quartiles over {count} samples."
        )
    return Section("creativity", title, texts=texts, tables=[tables.without_empty(table)], charts=charts)
