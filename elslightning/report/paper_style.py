"""The one style of publication figures: sizes, fonts, lines, and sheets of images."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from elslightning.report.figures import save

COLUMN, PAGE = 3.25, 6.75
"""Widths in inches: of a column, and of a page of two columns."""
FORMATS = ("png", "pdf")
INK, FAINT = "0.1", "0.7"
SMALL = 6.0
"""The smallest type, in points, that is read without effort in print."""
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    # Text as text, in fonts that journals accept; names of classes are never formulas.
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "savefig.dpi": 300,
}
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))
"""Styles of lines, which tell machines apart where there is no colour."""
MARKERS = "o^sDvP"

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws a figure in the style of publications, whatever the user's own."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return draw(*arguments, **options)

    return drawn


def save_formats(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as `stem`.png (300 dots per inch) and `stem`.pdf, each whole or not at all."""
    written = [stem.with_name(f"{stem.name}.{ending}") for ending in FORMATS]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        for path in written:
            save(figure, path)
    return written


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that lays itself out; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def letter(axes: Axes, text: str) -> None:
    """A panel's letter, at the upper left."""
    axes.set_title(text, loc="left", fontweight="bold", fontsize=8)


def plain(name: str, limit: int = 16) -> str:
    """A name that fits in one short line: without line breaks and what cannot be printed, cut with an ellipsis.

    >>> plain("two\\nlines", 5)
    'two …'
    """
    text = "".join(character if character.isprintable() else " " for character in name)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class Sheet:
    """Images and words at places in inches from the upper left corner of a figure, which are `figure` and `axes`."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.autoscale(False)

    def image(self, pixels: np.ndarray, x: float, y: float, width: float) -> float:
        """Puts an image (channel, height, width) in [-1, 1], clipped, with its upper left corner at (x, y); returns its
        height."""
        height = width * pixels.shape[1] / pixels.shape[2]
        # Enlarged, for readers of PDF that blur small images.
        factor = max(1, 64 // max(pixels.shape[1:]))
        levels = ((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
        levels = np.broadcast_to(levels, (3, *levels.shape[1:])).transpose(1, 2, 0)
        levels = levels.repeat(factor, axis=0).repeat(factor, axis=1)
        self.axes.imshow(levels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="nearest")
        self.axes.set_xlim(0, self.figure.get_figwidth())
        self.axes.set_ylim(self.figure.get_figheight(), 0)
        self.axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=FAINT, linewidth=0.4))
        return height

    def text(self, words: str, x: float, y: float, **options: Any) -> None:
        """Puts words at (x, y); `options` are those of matplotlib's text."""
        defaults: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL}
        self.axes.text(x, y, words, **(defaults | options))
