"""The gallery of what was created: samples, their nearest training images, their mosaics and measures."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from elslightning.diffusion.pixels import as_bytes, to_floats
from elslightning.diffusion.schedule import Schedule
from elslightning.machines.parameters import PATCH_SIZE
from elslightning.machines.registry import display_name
from elslightning.measurement.creation import Creation, Made
from elslightning.measurement.mosaic import Mosaic
from elslightning.report import figures
from elslightning.report.figures.creativity import creativity_map, image_points, machine_point, order_curve
from elslightning.report.page import tables
from elslightning.report.page.images import data_uri
from elslightning.report.page.page import render
from elslightning.report.page.section import Chart, Section
from elslightning.report.page.tables import Table
from elslightning.runs.layout import GALLERY
from elslightning.system.files import replacing, write_text

MOST = 100
"""Samples of a setting that the gallery shows; all are in the folder of pictures."""
MEASURES = {
    "novelty": "novelty",
    "memorised": "memorised",
    "nearest_r": "r with nearest",
    "patch_precision": "patch precision",
    "patch_recall": "patch recall",
    "consistency": "consistent",
    "fidelity": "fidelity",
    "precision": "precision",
    "density": "density",
    "coverage": "coverage",
    "diversity": "diversity",
}
"""Columns of the table."""


def write_gallery(created: Creation, schedule: Schedule, directory: str | Path, title: str) -> list[Path]:
    """Writes gallery.html, one file that opens from disk, and images/SETTING/NUMBER.png of every sample.

    Args:
        created: what is shown.
        schedule: gives the times of the order parameter.
        directory: of the run.
        title: of the page.
    """
    directory, written = Path(directory), []
    for made in created.dial:
        folder = directory / "images" / f"creativity_{made.setting:g}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(made.samples):
            written.append(folder / f"{number:03d}.png")
            with replacing(written[-1]) as temporary:
                Image.fromarray(as_bytes(image)).save(temporary, "PNG")
    content = [_measures(created), *(_setting(made, created.images) for made in created.dial), _map(created)]
    if any(made.order is not None for made in created.dial):
        content.append(_order(created, schedule))
    write_text(directory / GALLERY, render(title, _lead(created), content))
    return [directory / GALLERY, *written]


def map_points(created: Creation) -> list[dict[str, Any]]:
    """The points of the creativity map."""
    group = f"the dial of {display_name(created.source)}"
    dial = [machine_point(made.name, f"{made.setting:g}", made.novelty.summary(), group) for made in created.dial]
    family = [machine_point(made.name, f"×{made.setting:g}", made.novelty.summary()) for made in created.family]
    return [*dial, *family, *(image_points(made.name, made.novelty.summary()) for made in created.controls)]


def _lead(created: Creation) -> str:
    settings = ", ".join(f"{made.setting:g}" for made in created.dial)
    bank, first = f"{len(created.images)} {created.of}", created.dial[0]
    height, width = first.samples.shape[2:]
    return (
        f"{len(first.samples)} samples of {width}×{height} pixels, made without training from {bank}; the dial "
        f"at {settings}, from recall (0) over the windows that denoise held-out images best (0.5) to texture (1)."
    )


def _measures(created: Creation) -> Section:
    table = Table(
        "Means with 95 % bootstrap intervals. Held-out images are the mark: as new, and as much like the others, as "
        "images of this kind are."
        + (" Fidelity is how sure a classifier of all classes is of this one." if created.label is not None else ""),
        ["", *MEASURES.values()],
    )
    for made in created.all:
        found = made.novelty.summary()
        cells = [
            f"{tables.number(found[name]['mean'])} ({tables.interval(found[name])})" if name in found else "–"
            for name in MEASURES
        ]
        table.rows.append([made.label, *cells])
    return Section("measures", "Measures", tables=[tables.without_empty(table)])


def _setting(made: Made, images: Tensor) -> Section:
    shown = range(min(MOST, len(made.samples)))
    words = {0.0: "recall", 0.5: "the windows that denoise best", 1.0: "texture"}
    sizes = [] if made.scales is None else made.scales.columns[PATCH_SIZE].flip(0).tolist()
    text = f"Windows from noise to image: {tables.sizes(sizes)} pixels. " if sizes else ""
    text += "Pointing at a sample, or reaching it by keyboard, shows its mosaic: a colour for each training image."
    if len(made.samples) > MOST:
        text += f" The first {MOST} of {len(made.samples)}."
    name = f"{made.setting:g}"
    known = f": {words[made.setting]}" if made.setting in words else ""
    works = [_work(made, number, images) for number in shown]
    return Section(f"dial-{name.replace('.', '-')}", f"Creativity {name}{known}", texts=[text], works=works)


def _work(made: Made, number: int, images: Tensor) -> dict[str, Any]:
    values = {name: column[number].item() for name, column in made.novelty.values.items() if len(column) > number}
    height, width = made.samples.shape[2:]
    scale = max(1, round(96 / max(height, width)))
    found: dict[str, Any] = {
        "number": number,
        "sample": data_uri(made.samples[number]),
        "mosaic": data_uri(painted(made.novelty.mosaic, made.samples[number], number)),
        "width": width * scale,
        "height": height * scale,
        "novelty": f"{values['novelty']:.2f}",
        "about": f"{_several(values['tiles'], 'piece')} of {_several(values['images'], 'image')}",
        "nearest": None,
    }
    if len(made.novelty.nearest):
        nearest = int(made.novelty.nearest[number])
        found["nearest"] = data_uri(to_floats(images[nearest]))
        found["nearest_about"] = f"image {nearest}, r = {values['nearest_r']:.2f}"
        if values["memorised"]:
            found["about"] += ", memorised"
    return found


def _several(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def painted(found: Mosaic, sample: Tensor, number: int) -> np.ndarray:
    """A sample in the colours of its mosaic, (3, height, width) in [-1, 1]: a hue for each training image, its tiles a
    little lighter or darker."""
    image, tile = found.image[number].numpy(), found.tile[number].numpy()
    hues = {index: (place * 0.618034) % 1 for place, index in enumerate(dict.fromkeys(image.flatten().tolist()))}
    grey = (sample.float().clamp(-1, 1).mean(dim=0).numpy() + 1) / 2
    colours = np.zeros((3, *image.shape))
    for (row, column), index in np.ndenumerate(image):
        value = 0.55 + 0.15 * int(tile[row, column] % 3)
        colours[:, row, column] = colorsys.hsv_to_rgb(hues[index], 0.7, value)
    return (0.65 * colours + 0.35 * grey) * 2 - 1


def _map(created: Creation) -> Section:
    caption = "Up: like the training images. Right: new. The star is where held-out images stand."
    chart = Chart(
        figures.svg(creativity_map, map_points(created)), caption, "The numbers are in the table of measures."
    )
    return Section("map", "The creativity map", charts=[chart])


def _order(created: Creation, schedule: Schedule) -> Section:
    orders = {f"{made.setting:g}": made.order for made in created.dial if made.order is not None}
    count = next(iter(orders.values())).effective.shape[1]
    text = (
        "How many candidates a pixel still averages over. Order is 1 where a pixel is decided, and 0 where it has as "
        f"many effective candidates as there are images (N = {len(created.images)}). A sample that decides with most "
        "pixels in one image memorises; one that decides with pixels in many creates. Medians and quartiles over "
        f"{count} samples."
    )
    drawn = figures.svg(order_curve, orders, schedule)
    chart = Chart(drawn, "The dial at its settings, from noise to image.", "Order over time, see the text.")
    return Section("order", "Where it decides", texts=[text], charts=[chart])
