"""Samples side by side: images in rows with words around them (Figs. 3, 5, 10 to 12)."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from elslightning.diffusion.pixels import as_bytes
from elslightning.machines.registry import BASELINE, display_name
from elslightning.measurement.comparison import Comparison
from elslightning.report.figures.style import PRINT, SCREEN, Style, letters, new_figure, percent, plain, styled

FEW = 6
"""Images in a row for which the width of a column is enough."""
LINES_PER_PAGE = 10
MARGIN, GAP = 0.02, 0.035
"""In inches, around a figure and between its images."""


class _Sheet:
    """Images and words at places in inches from the upper left corner of a figure."""

    def __init__(self, style: Style, width: float, height: float) -> None:
        self.style = style
        self.figure = new_figure(style, width, height, itself=False)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self._fit()

    def _fit(self) -> None:
        self.axes.set_xlim(0, self.figure.get_figwidth())
        self.axes.set_ylim(self.figure.get_figheight(), 0)

    def image(self, image: Tensor, x: float, y: float, width: float) -> None:
        """Puts an image (channel, height, width) in [-1, 1], clipped, with its upper left corner at (x, y)."""
        height = width * image.shape[1] / image.shape[2]
        factor = max(1, 64 // max(image.shape[1:]))  # enlarged, for readers of PDF that blur small images
        pixels = as_bytes(image).repeat(factor, axis=0).repeat(factor, axis=1)
        self.axes.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="nearest")
        self._fit()
        frame = {"fill": False, "edgecolor": self.style.rule, "linewidth": 0.4}
        self.axes.add_patch(Rectangle((x, y), width, height, **frame))  # type: ignore[arg-type]

    def text(self, words: str, x: float, y: float, **options: Any) -> None:
        """Puts words at (x, y); `options` are those of matplotlib's text."""
        defaults: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": self.style.small}
        self.axes.text(x, y, words, **(defaults | options))


def _width(words: Sequence[str], style: Style) -> float:
    """That of the longest line of some words, in inches: a letter of this font is some 0.6 of its height wide."""
    return 0.6 * style.em * max((len(line) for text in words for line in text.split("\n")), default=0) + 4 * MARGIN


@styled
def image_rows(
    rows: Mapping[str, Tensor],
    titles: Sequence[str] = (),
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
    heads: tuple[str, str] = ("", ""),
    caption: str = "",
    style: Style = SCREEN,
) -> Figure:
    """Images in named rows.

    Args:
        rows: (n, channel, height, width) in [-1, 1] by name; shorter ones leave their last places empty.
        titles: of the columns, one line or more.
        notes: what stands under each image of a row, by the row's name.
        heads: what the titles are, and what the notes are.
        caption: beneath all.
        style: how it looks.
    """
    notes = {} if notes is None else notes
    columns = max(len(images) for images in rows.values())
    line = 1.35 * style.em
    left = _width([*rows, *heads], style)
    place = ((style.column if columns <= FEW else style.page) - left - MARGIN) / max(columns, FEW)
    side = place - GAP
    heights = [side * images.shape[2] / images.shape[3] for images in rows.values()]
    under = [line if name in notes else 0.0 for name in rows]
    top = MARGIN + line * max((title.count("\n") + 1 for title in titles), default=0)
    width = max(left + columns * place + MARGIN, style.column / 2)
    caption = textwrap.fill(caption, letters(width, style))
    foot = line * (caption.count("\n") + bool(caption))
    sheet = _Sheet(style, width, top + sum(heights) + sum(under) + len(rows) * GAP + foot + MARGIN)
    sheet.text(heads[0], MARGIN, top / 2, ha="left")
    for column, title in enumerate(titles):
        sheet.text(title, left + column * place + side / 2, top / 2)
    y = top
    for (name, images), height, below in zip(rows.items(), heights, under, strict=True):
        sheet.text(name, MARGIN, y + height / 2, ha="left", fontsize=style.type)
        for column, image in enumerate(images):
            sheet.image(image, left + column * place, y, side)
        y += height
        if below:
            sheet.text(heads[1], left - 2 * MARGIN, y + below / 2, ha="right")
        for column, note in enumerate(notes.get(name, ())):
            sheet.text(note, left + column * place + side / 2, y + below / 2)
        y += below + GAP
    if caption:
        sheet.text(caption, MARGIN, y + foot / 2, ha="left")
    return sheet.figure


def first_samples(samples: Tensor, *, style: Style = SCREEN) -> Figure:
    """The first 64 samples (batch, channel, height, width), eight in a row."""
    parts = zip(range(0, 64, 8), samples[:64].split(8), strict=False)
    return image_rows({f"{start}": part for start, part in parts}, style=style)


def pairs(
    comparison: Comparison,
    machine: str,
    *,
    steps: int | None = None,
    classes: Sequence[str] | None = None,
    count: int = FEW,
    style: Style = SCREEN,
) -> Figure:
    """Fig. 5: samples from the same noise: a row per machine, its Pearson r with the network under every image, and
    the network beneath them.

    Pairs are not picked: they stand in the order of one machine's r, and the ranks shown are evenly spread from the
    best to the worst.

    Args:
        comparison: the samples.
        machine: by whose r the pairs are ranked.
        steps: of the network; None for the first number of steps.
        classes: the class of every pair, for a conditional network.
        count: number of pairs; fewer if there are fewer.
        style: how it looks.
    """
    steps = next(iter(comparison.network)) if steps is None else steps
    order = comparison.values(machine, steps).argsort(descending=True, stable=True)
    ranks = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    shown = order[torch.from_numpy(ranks)]
    titles = [f"{rank + 1} of {len(order)}" if rank == ranks[-1] > 0 else f"{rank + 1}" for rank in ranks]
    if classes is not None:
        titles = [f"{title}\n{plain(classes[pair], 9)}" for title, pair in zip(titles, shown.tolist(), strict=True)]
    rows = {display_name(name): comparison.samples(name, steps)[shown] for name in comparison.names}
    r = {display_name(name): comparison.values(name, steps)[shown].tolist() for name in comparison.names}
    return image_rows(
        rows | {f"network,\n{steps} steps": comparison.network[steps][shown]},
        titles,
        notes={name: [f"{value:.2f}" for value in values] for name, values in r.items()},
        heads=("rank of r" if classes is None else "rank of r\nclass", "r ="),
        caption=f"A column: the same noise. r: Pearson r with the network; ranks: by that of {display_name(machine)}.",
        style=style,
    )


def class_grids(
    comparison: Comparison,
    machine: str,
    *,
    steps: int | None = None,
    classes: Sequence[str] | None = None,
    columns: int = 6,
    style: Style = PRINT,
) -> Iterator[Figure]:
    """Figs. 10 to 12: many pairs, a line per class, each as theory, network and IS side by side with their Pearson r.

    The pairs are the first of every class, in the order of their noises; without classes, the first of all.

    Args:
        comparison: the samples.
        machine: the theory.
        steps: of the network; None for the first number of steps.
        classes: the class of every pair, for a conditional network.
        columns: pairs in a line.
        style: how it looks.

    Returns:
        As many pages as the classes need, of 10 lines each; without classes, one.
    """
    steps = next(iter(comparison.network)) if steps is None else steps
    network = comparison.network[steps]
    lines: list[tuple[str, list[int]]]
    if classes is None:
        some = list(range(min(len(network), LINES_PER_PAGE * columns)))
        parts = [some[start : start + columns] for start in some[::columns]]
        lines = [(f"{part[0] + 1}–{part[-1] + 1}", part) for part in parts]
    else:
        members: dict[str, list[int]] = {}
        for pair, name in enumerate(classes):
            members.setdefault(name, []).append(pair)
        lines = [(name, of_class[:columns]) for name, of_class in members.items()]
    others = [name for name in dict.fromkeys([machine, BASELINE]) if name in comparison.machines]
    shown = {display_name(name): (comparison.samples(name, steps), comparison.values(name, steps)) for name in others}
    first, *rest = shown.items()
    whole: dict[str, tuple[Tensor, Tensor | None]] = dict([first, ("network", (network, None)), *rest])
    title = ("pairs" if classes is None else "class", f"r with the network ({steps} steps) beneath")
    for start in range(0, len(lines), LINES_PER_PAGE):
        yield _class_grid(whole, lines[start : start + LINES_PER_PAGE], title, style=style)


@styled
def _class_grid(
    shown: Mapping[str, tuple[Tensor, Tensor | None]],
    lines: Sequence[tuple[str, list[int]]],
    titles: tuple[str, str],
    *,
    style: Style,
) -> Figure:
    network = shown["network"][0]
    columns = max(len(pairs) for _, pairs in lines)
    left, line, between = 7.4 * style.em, 1.45 * style.em, style.em
    top = 3.1 * style.em
    block = (style.page - left) / max(columns, FEW) - between
    side = block / len(shown)
    height = side * network.shape[2] / network.shape[3]
    fine = style.small - 0.5
    sheet = _Sheet(style, left + columns * (block + between), top + len(lines) * (height + line) + MARGIN)
    sheet.text(titles[0], MARGIN, 0.65 * top, ha="left", fontsize=style.type)
    sheet.text(titles[1], left, 0.2 * top, ha="left")
    for column in range(columns):
        sheet.text(" | ".join(shown), left + column * (block + between) + block / 2, 0.65 * top, fontsize=fine)
    for position, (name, pairs) in enumerate(lines):
        y = top + position * (height + line)
        sheet.text(plain(name, 11), MARGIN, y + height / 2, ha="left", fontsize=style.type)
        for column, pair in enumerate(pairs):
            for place, (samples, r) in enumerate(shown.values()):
                x = left + column * (block + between) + place * side
                sheet.image(samples[pair], x, y, side - 0.01)
                if r is not None:
                    sheet.text(f"{r[pair]:.2f}", x + side / 2, y + height + line / 2 - 0.01, fontsize=fine)
    return sheet.figure


@styled
def black_white(samples: Tensor, consistent: float | None = None, *, style: Style = PRINT) -> Figure:
    """Fig. 3: the two training images, all black and all white, and samples of ELS, no two alike.

    Args:
        samples: (samples, channel, height, width) in [-1, 1]; the first 32 are shown.
        consistent: the median share of pixels that have the majority colour of their patch, if it is known.
        style: how it looks.
    """
    shown, columns, left, top = samples[:32], 8, 7.4 * style.em, 2.2 * style.em
    place = (style.column - left) / columns
    lines = max(-(-len(shown) // columns), 2)
    sheet = _Sheet(style, style.column, top + lines * place + MARGIN)
    share = "" if consistent is None else f"; {percent(consistent)} of pixels are consistent (median)"
    for letter, title, x in (("a", "training set", MARGIN), ("b", f"ELS samples{share}", left)):
        sheet.text(letter, x, 0.4 * top, ha="left", fontweight="bold", fontsize=style.type + 1)
        sheet.text(title, x + style.em, 0.4 * top, ha="left", fontsize=style.type)
    for line, value in enumerate((-1.0, 1.0)):
        sheet.image(torch.full_like(samples[0], value), style.em, top + line * place, place - GAP)
    for position, sample in enumerate(shown):
        line, column = divmod(position, columns)
        sheet.image(sample, left + column * place, top + line * place, place - GAP)
    return sheet.figure
