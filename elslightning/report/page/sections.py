"""The sections of a report: a run in, words, tables, charts and pictures out."""

import numpy as np

from elslightning.diffusion.schedule import Schedule
from elslightning.machines.registry import BASELINE, display_name
from elslightning.measurement.alarms import alarms, not_images
from elslightning.report import figures
from elslightning.report.classes import called, names_of
from elslightning.report.page import tables, theories
from elslightning.report.page.cautions import cautions
from elslightning.report.page.explorer import Explorer
from elslightning.report.page.images import data_uri
from elslightning.report.page.plan import middle
from elslightning.report.page.published import published
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.tables import Table
from elslightning.runs.experiment import schedule_of
from elslightning.runs.run import Run
from elslightning.system.errors import InputError

MOST_PAIRS = 100
PAIR_BYTES = 500_000
"""Uncompressed bytes of all pairs shown."""


def lead(run: Run) -> str:
    """The result in one sentence."""
    theory, steps = run.theory, run.reference_steps
    if theory is None or steps is None:
        return "A run without a comparison."
    entry = run.summary["machines"][theory][str(steps)]["pearson_r"]
    text = "".join(f"{line} " for line in not_images(run.summary)) + (
        f"{display_name(theory)}, which was never trained, predicts the images of this network with a median Pearson r "
        f"of {entry['median']:.3f} ({tables.interval(entry)}, {run.summary['pairs']} pairs, {steps} network steps)"
    )
    if theory == BASELINE or BASELINE not in run.machines:
        return text + "."
    ideal = run.summary["machines"][BASELINE][str(steps)]["pearson_r"]["median"]
    return f"{text}; the ideal score machine, which only recalls training images, with {ideal:.3f}."


def sections(
    run: Run,
    explorer: Explorer | None,
    complaint: str,
    mosaics: Table | None,
    creativity: Section | None = None,
) -> list[Section]:
    """All sections of a run's report, in order.

    Args:
        run: what was run.
        explorer: its explorer, or None.
        complaint: why there is none.
        mosaics: statistics of the mosaics, see `elslightning.report.page.mosaics`.
        creativity: see `elslightning.report.page.creativity`.
    """
    schedule: Schedule | str
    try:
        schedule = schedule_of(run)
    except InputError as error:
        schedule = f"There are no charts against time: {error}."
    return [
        _headline(run),
        _explorer(explorer, complaint),
        _pairs(run),
        *theories.ranking(run),
        _scatter(run),
        _scales(run, schedule),
        _trajectory(explorer, schedule),
        *theories.handover(run),
        *theories.stepwise(run, schedule),
        _mosaics(mosaics, complaint),
        *([] if creativity is None else [creativity]),
        theories.consistency(run),
        _training(run),
        Section("run", "What was run", tables=[tables.facts(run)]),
    ]


def _headline(run: Run) -> Section:
    if not run.summary:
        return Section("result", "Result", "The run has no comparison.csv and summary.json: nothing was compared.")
    paper, first = published(run.setting), alarms(run.summary, run.losses)
    texts = []
    if paper is not None:
        texts.append(
            f"The column “paper” is the row {paper.text()} of Kamb & Ganguli's tables: all training images at 32×32 "
            f"pixels, width 256 or more, 300 epochs, machines with 20 steps. What this run did otherwise stands below."
        )
    return Section(
        "result",
        "Result",
        texts=texts,
        alarms=first,
        points=[line for line in cautions(run) if line not in first],
        tables=[tables.headline(run)],
        details=[tables.measures(run)],
    )


def _explorer(explorer: Explorer | None, complaint: str) -> Section:
    title = "Mosaic explorer"
    if explorer is None:
        return Section("explorer", title, complaint)
    machine, painted = explorer.meta["machine"], explorer.painted
    texts = [
        f"{machine} paints every pixel as a weighted average of {painted}. Choose a pair and a pixel: the training "
        f"image with the greatest weight appears, its patch outlined, and so does the tile of pixels that come from "
        f"the same image at the same offset. The slider goes from noise to image."
    ]
    steps, total = explorer.meta["steps"], explorer.meta["pairs"][0]["of"]
    known = sum(step["slot"] >= 0 for step in steps)
    texts.append(f"Here: {len(explorer.pairs)} of {total} pairs; sources at {known} of the {len(steps)} steps shown.")
    if explorer.coverage < 1:
        texts.append(
            f"To keep the file small, pictures are kept of the sources of {tables.share(explorer.coverage)} of the "
            f"pixels only."
        )
    return Section("explorer", title, texts=texts, explorer=True)


def _pairs(run: Run) -> Section:
    theory, steps = run.theory, run.reference_steps
    title = "Pairs"
    if theory is None or steps is None:
        return Section("pairs", title, "There are no pairs, for the run compared nothing.")
    left, right = run.images(theory, steps), run.network_images(steps)
    if left is None or right is None:
        return Section("pairs", title, "The run has no samples.npz with the images of its pairs.")
    r, labels = run.values(theory, steps), run.labels()
    order = np.argsort(-r, kind="stable")
    count = min(len(order), MOST_PAIRS, max(3, PAIR_BYTES // (2 * left[0].size)))
    ranks = sorted(
        {0, middle(len(order)), len(order) - 1} | set(np.linspace(0, len(order) - 1, count).round().astype(int))
    )
    marks = {len(order) - 1: "worst", middle(len(order)): "median", 0: "best"}
    names = names_of(run)
    shown = [
        {
            "pair": int(order[rank]),
            "r": f"{r[order[rank]]:.3f}",
            "label": None if (label := labels[order[rank]]) is None else called(names, label),
            "mark": marks.get(rank),
            "theory": data_uri(left[order[rank]]),
            "network": data_uri(right[order[rank]]),
            "width": left.shape[3],
            "height": left.shape[2],
        }
        for rank in ranks
    ]
    text = (
        f"The theory ({display_name(theory)}) on the left, the network with {steps} steps on the right, from the same "
        f"noise; sorted by Pearson r."
    )
    if len(shown) < len(order):
        text += f" {len(shown)} of {len(order)} pairs, evenly spread."
    return Section("pairs", title, texts=[text], pairs=shown)


def _scatter(run: Run) -> Section:
    theory, title = run.theory, "Against recall"
    if run.comparison is None or theory in (None, BASELINE) or BASELINE not in run.machines:
        return Section("recall", title, "The run has no other machine beside the ideal score machine (IS).")
    assert theory is not None
    name = display_name(theory)
    alt = "; ".join(
        f"against {steps} network steps, r of {name} exceeds r of IS on "
        f"{tables.share(run.summary['machines'][theory][str(steps)]['beats_is'])} of pairs"
        for steps in run.network_steps
    )
    caption = "A point per pair. Above the dashed line a machine predicts the network's image better than IS does."
    svg = figures.svg(figures.scatter, run.comparison, run.theories)
    return Section("recall", title, charts=[Chart(svg, caption, alt)])


def _scales(run: Run, schedule: Schedule | str) -> Section:
    title = "Scale of the patches"
    if not run.scales:
        return Section("scale", title, "The run has no scales.json: no machine of it has a patch size.")
    texts = []
    if not run.receptive_field:
        texts.append("The network's own gradients were not measured in this run.")
    if not run.calibrations:
        texts.append("The scales were given, not calibrated, so there are no agreement curves.")
    if isinstance(schedule, str):
        return Section("scale", title, texts=[*texts, schedule], tables=[tables.scale_table(run)])
    caption = "Patch size per noise level, and the window that holds the gradient of the network's x0."
    if run.calibrations:
        objective = run.setting("calibration.objective") or "agreement"
        caption += f" Beneath: by how much the median agreement ({objective}) of every patch size tried is worse."
    svg = figures.svg(figures.scales, run.scales, schedule, calibrations=run.calibrations, field=run.gradients)
    chart = Chart(svg, caption, f"{caption} The numbers are in the table.")
    return Section("scale", title, texts=texts, tables=[tables.scale_table(run)], charts=[chart])


def _trajectory(explorer: Explorer | None, schedule: Schedule | str) -> Section:
    title = "Along the way"
    if isinstance(schedule, str):
        return Section("way", title, schedule)
    if explorer is None or explorer.own is None:
        reason = "no explorer" if explorer is None else "no checkpoint, or other steps for the network"
        return Section("way", title, f"Agreement per step is computed from the explorer's pairs; there is {reason}.")
    curves = {"each on its own path": explorer.own}
    count = len(explorer.pairs)
    text = (
        f"Pearson r of the posterior means x0 of theory and network at every step, for {count} "
        f"{'pair' if count == 1 else 'pairs'} of the explorer. On paths of their own, differences add up"
    )
    if explorer.shared is None:
        text += "."
    else:
        curves["both at the network's state"] = explorer.shared
        text += "; at the same state, only the step's own counts."
    t = [f"{time:.2f}" for time in schedule.time(explorer.alpha_bar).tolist()]
    table = Table("Median r of x0 per step.", ["t", *curves])
    medians = [curve.median(dim=1).values.tolist() for curve in curves.values()]
    table.rows.extend([time, *(f"{value:.3f}" for value in values)] for time, *values in zip(t, *medians, strict=True))
    svg = figures.svg(figures.trajectory, explorer.alpha_bar, curves, schedule)
    caption = "Thick: medians; thin: single pairs."
    chart = Chart(svg, caption, "Agreement against time; the medians are in the table below.")
    return Section("way", title, texts=[text], charts=[chart], details=[table])


def _training(run: Run) -> Section:
    title = "Training"
    if not run.losses:
        return Section("training", title, "The run has no losses in metrics.csv: the network was trained elsewhere.")
    alt = "; ".join(f"{name} fell from {p[0][1]:.3f} to {p[-1][1]:.4f}" for name, p in run.losses.items())
    chart = Chart(figures.svg(figures.losses, run.losses), "Losses against optimizer steps.", alt)
    return Section("training", title, charts=[chart])


def _mosaics(content: Table | None, complaint: str) -> Section:
    title = "Recall or mosaic"
    if content is None:
        return Section(
            "mosaics", title, complaint.replace("There is no explorer", "There are no statistics of mosaics")
        )
    text = (
        "Every pixel of a sample is held against the nearest training patch, in the limit of no noise. Pixels that are "
        "connected and whose patches lie in one training image at one offset make a tile. A recalled training image "
        "is one tile; a mosaic has many, from many images."
    )
    return Section("mosaics", title, texts=[text], tables=[content])
