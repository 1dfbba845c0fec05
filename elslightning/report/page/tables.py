"""The tables of a report: the same in HTML and in Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elslightning.machines.parameters import PATCH_SIZE
from elslightning.machines.registry import display_name
from elslightning.measurement.names import NETWORK
from elslightning.measurement.table import ABSENT, difference, median
from elslightning.report.classes import names_of
from elslightning.report.figures.style import percent
from elslightning.report.page.published import published
from elslightning.runs.experiment import formal_receptive_field, parameter_count
from elslightning.runs.run import Run

NAMED = 12
"""So many classes at most are named."""
PADDINGS = {"zeros": "zero padding", "circular": "circular padding"}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it shows.
        head: titles of the columns.
        rows: cells; the first of a row is its title.
        strong: the column whose cells matter most, if any.
        words: whether cells are words rather than numbers.
    """

    caption: str
    head: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    strong: int | None = None
    words: bool = False


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def share(value: float | None, digits: int = 0) -> str:
    """A share as a percentage, or a dash."""
    return ABSENT if value is None else percent(value, digits)


def interval(entry: dict[str, float]) -> str:
    """From low to high."""
    return f"{entry['low']:.3f} … {entry['high']:.3f}"


def sizes(values: Sequence[float]) -> str:
    """Patch sizes, or values of another parameter, in a row.

    >>> sizes([3, 0.75, float("inf")])
    '3 0.75 ∞'
    """
    return " ".join("∞" if math.isinf(value) else f"{value:g}" for value in values)


def headline(run: Run) -> Table:
    """The medians, beside the paper's where it has a row of the kind."""
    paper = published(run.setting)
    shares = ["beats IS", "consistent", "memorised", "of ceiling", "beyond: of ceiling"]
    replicas = ["corrected r", "r of replicas", "error of samples"]
    reference = "" if run.comparison is None else display_name(run.comparison.reference)
    caption = f"Median Pearson r with the network over {run.summary['pairs']} pairs, with bootstrap 95 % intervals."
    recalled = {steps: entry.get("memorised") for steps, entry in run.summary.get("network", {}).items()}
    if any(value is not None for value in recalled.values()):
        found = ", ".join(f"{share(value)} ({steps} steps)" for steps, value in recalled.items())
        caption += f" Of the network's own samples are memorised: {found}."
    titles = [
        "machine",
        "network steps",
        "median r",
        "95 % interval",
        "r²",
        "R²",
        "beyond trivial",
        f"r - r of {reference}",
    ]
    table = Table(caption, [*titles, *shares, *replicas, "paper"], strong=2)
    for machine, by_steps in run.summary["machines"].items():
        for steps, entry in by_steps.items():
            theirs = None if paper is None or not steps.isdecimal() else paper.median(machine, int(steps))
            table.rows.append(
                [
                    display_name(machine),
                    steps,
                    number(entry["pearson_r"]["median"]),
                    interval(entry["pearson_r"]),
                    number(entry["pearson_r2"]["median"]),
                    number(entry["r2_score"]["median"]),
                    median(entry.get("beyond_trivial")),
                    difference(entry.get("difference")),
                    share(entry.get("beats_is")),
                    share(entry.get("consistency"), 1),
                    share(entry.get("memorised")),
                    share(entry.get("share_of_ceiling")),
                    share(entry.get("beyond_share_of_ceiling")),
                    median(entry.get("corrected_r")),
                    median(entry.get("replica_r")),
                    median(entry.get("sample_error")),
                    number(theirs, 2),
                ]
            )
    return without_empty(table)


def without_empty(table: Table) -> Table:
    """The table without columns that hold dashes only."""
    kept = [i for i in range(len(table.head)) if i == 0 or any(row[i] != ABSENT for row in table.rows)]
    strong = kept.index(table.strong) if table.strong in kept else None
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.caption, [table.head[i] for i in kept], rows, strong, table.words)


def measures(run: Run) -> Table:
    """Every measure of agreement."""
    titles = {"pearson_r": "r", "pearson_r2": "r²", "r2_score": "R²", "cosine": "cosine", "mse": "MSE"}
    table = Table("Medians of every measure over pairs.", ["machine", "network steps", *titles.values()])
    for machine, by_steps in run.summary["machines"].items():
        for steps, entry in by_steps.items():
            cells = [number(entry[name]["median"]) for name in titles]
            table.rows.append([display_name(machine), steps, *cells])
    return table


def scale_table(run: Run) -> Table:
    """Patch sizes, from noise to image, and the network's own windows beside them."""
    table = Table("Patch sizes in pixels, from noise to image.", ["", "patch size per step"], words=True)
    for machine, scales in run.scales.items():
        for name, column in scales.columns.items():
            title = display_name(machine) if name == PATCH_SIZE else f"{display_name(machine)}: {name}"
            table.rows.append([title, sizes(column.flip(0).tolist())])
    field_rows = sorted(run.receptive_field, key=lambda row: -row["step"])
    for percentage in (50, 90, 99) if field_rows else ():
        values = [int(row[f"x0_size_{percentage}"]) for row in field_rows]
        table.rows.append([f"network: {percentage} % of the gradient of x0", sizes(values)])
    return table


def consistency_table(run: Run) -> Table:
    """The share of pixels that are the centre of the nearest training patch, for theory and network."""
    table = Table(
        "Median share of a sample's pixels that are the centre of the training patch nearest to their own.",
        ["machine", "samples of", "steps", "median", "middle half of pairs"],
    )
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in () if run.comparison is None else run.comparison.consistency:
        found.setdefault((row["machine"], row["source"], row["steps"]), []).append(row["consistency"])
    for (machine, source, steps), values in found.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        of = "the network" if source == NETWORK else "the machine"
        spread = f"{share(low, 1)} … {share(high, 1)}"
        table.rows.append([display_name(machine), of, str(steps), share(median, 1), spread])
    return table


def command(run: Run) -> str | None:
    """The command that made the run; without run.json, what its configuration remembers of it."""
    if run.record.get("command"):
        return str(run.record["command"])
    verb = run.setting("verb")
    return None if verb is None else " ".join(["elslightning", str(verb), *run.overrides])


def facts(run: Run) -> Table:
    """What was run: data, network, command, versions; only what the files say."""
    record, table = run.record, Table("Data, network, command and versions.", ["", ""], words=True)

    def add(title: str, *parts: Any) -> None:
        text = ", ".join(str(part) for part in parts if part not in (None, ""))
        if text:
            table.rows.append([title, text])

    size, side = run.setting("data.train_size"), run.setting("data.image_size")
    shown = next(iter(run.samples.values()), None)
    shape = (
        None if shown is None else f"{shown.shape[2]}×{shown.shape[3]} pixels, {_counted(shown.shape[1], 'channel')}"
    )
    add(
        "data",
        run.setting("data.dataset"),
        *(_counts(run) or ([] if size is None else [f"first {size:,} training images"])),
        shape or (f"{side}×{side} pixels" if side else None),
    )
    network = str(run.setting("denoiser._target_") or "").rpartition(".")[2]
    weights, width = parameter_count(run.config), run.setting("denoiser.width")
    add(
        "network",
        network,
        None if width is None else f"width {width}",
        None if weights is None else f"{weights:,} weights",
        PADDINGS.get(run.setting("denoiser.padding_mode")),
        {True: "class-conditional", False: "unconditional"}.get(run.setting("denoiser.conditional")),
    )
    add("network from elsewhere", *_brought(run))
    formal = formal_receptive_field(run.config)
    # Where the configuration holds no architecture, it is one of diffusers or another's.
    whole = "the whole image, as far as is known: measured by gradients" if _sees_all(run) else None
    add("formal receptive field", whole if formal is None else f"{formal}×{formal} pixels")
    epochs = run.setting("trainer.max_epochs")
    add("training", None if epochs is None else f"{epochs} epochs", _last_loss(run))
    add("steps", f"machines {run.steps}" if run.steps else None, *(f"network {steps}" for steps in run.network_steps))
    add("seed", record.get("seed", run.setting("seed")))
    add("command", command(run))
    git = record.get("git") if isinstance(record.get("git"), dict) else None
    if git:
        add("commit", git.get("commit"), "with uncommitted changes" if git.get("dirty") else None)
    versions = record.get("versions")
    if isinstance(versions, dict):
        add("versions", *(f"{name} {version}" for name, version in versions.items() if version))
    add("data checksum", record.get("data_sha256"))
    add("device", record.get("gpu") or record.get("device"), _counted(record.get("processes"), "process", "processes"))
    add("started", record.get("started"))
    return table


def _counts(run: Run) -> list[str]:
    """How many images there were, and which classes; nothing for runs that do not say it."""
    counts = run.record.get("images")
    if not isinstance(counts, dict) or not all(isinstance(counts.get(key), int) for key in ("train", "val")):
        return []
    parts = [f"{counts['train']:,} training images", f"{counts['val']:,} for validation"]
    if isinstance(classes := counts.get("classes"), int):
        names = names_of(run)
        told = f" ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})" if len(names) == classes else ""
        parts.append(f"{_counted(classes, 'class', 'classes')}{told}")
    return parts


def _brought(run: Run) -> list[str]:
    """The words of the section `network` that say what it is."""
    kind = str(run.setting("network._target_") or "").rpartition(".")[2]
    words = [run.setting(f"network.{key}") for key in ("path", "module", "interface", "prediction")]
    return [kind, *(str(word) for word in words if word is not None)] if kind else []


def _sees_all(run: Run) -> bool:
    """Whether the network is one of whose receptive field nothing is known: of attention, or from elsewhere."""
    field = run.setting("network.receptive_field")
    section = run.setting("denoiser")
    target = str(run.setting("denoiser._target_"))
    return field is None and (section == {} or target.endswith(".DiffusersUNet"))


def _counted(count: Any, one: str, many: str | None = None) -> str | None:
    return None if not isinstance(count, int) else f"{count} {one if count == 1 else many or one + 's'}"


def _last_loss(run: Run) -> str | None:
    points = run.losses.get("val/loss")
    return f"val/loss {points[-1][1]:.4f} at the end" if points else None
