"""The three styles that every figure can be drawn in: for the screen, for print, and for the page of a report."""

import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from elslightning.machines.registry import COLOURS
from elslightning.system.files import replacing


@dataclass(frozen=True)
class Style:
    """Sizes in inches, type in points, colours.

    Attributes:
        column: the width of a figure of one panel, or of a few images.
        page: the width of a figure of many.
        type, small: of titles and labels; of ticks, legends and numbers.
        dpi: pixels per inch.
        line: the width of lines in points.
        ink, rule: of text and of what stands for the network; of what is in the background.
        grid: whether lines go through the ticks.
    """

    column: float
    page: float
    type: float
    small: float
    dpi: float
    line: float
    ink: str = "0.1"
    rule: str = "0.7"
    grid: bool = False

    @property
    def em(self) -> float:
        """The height of type in inches."""
        return self.type / 72

    def colour(self, name: str) -> str:
        """Of a machine; whatever else is compared has the colour of text."""
        return COLOURS.get(name, self.ink)

    def parameters(self) -> Any:
        """The style in matplotlib's words."""
        sizes = {f"{part}.labelsize": self.small for part in ("xtick", "ytick")}
        sizes |= {"font.size": self.type, "axes.titlesize": self.type, "axes.labelsize": self.type}
        colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), self.ink)
        thin = dict.fromkeys(("axes.linewidth", "grid.linewidth", "xtick.major.width", "ytick.major.width"), 0.6)
        return {
            **sizes,
            **colours,
            **thin,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "legend.fontsize": self.small,
            "legend.frameon": False,
            "legend.handlelength": 1.8,
            "axes.edgecolor": self.rule if self.grid else self.ink,
            "axes.grid": self.grid,
            "axes.axisbelow": True,
            "grid.color": self.rule,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": self.line,
            # Text as text, in fonts that journals accept; names of classes and runs are never formulas.
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "svg.hashsalt": "elslightning",
            "text.parse_math": False,
        }

    @contextmanager
    def context(self) -> Iterator[None]:
        """Where matplotlib draws in this style, whatever the user's own."""
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(self.parameters())
            yield


SCREEN = Style(column=6.4, page=10, type=9, small=8, dpi=120, line=1.4)
"""Files of a run directory, and notebooks."""
PRINT = Style(column=3.25, page=6.75, type=7, small=6, dpi=300, line=1.2)
"""A column or the width of a page of two; 6 points are the smallest that is read without effort."""
PAGE = Style(column=6.4, page=6.4, type=10, small=9, dpi=72, line=1.6, ink="#0a0b0c", rule="#0d0e0f", grid=True)
"""SVG whose colours are stand-ins, replaced by the page's own."""
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))
"""Styles of lines, which tell machines apart where there is no colour."""
MARKERS = "o^sDvP"

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws a figure in the style that its argument `style` names, by default for the screen."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> Figure:
        style: Any = options.get("style", SCREEN)
        with style.context():
            figure = draw(*arguments, **options)
            for axes in figure.axes:
                # Ticks are made when a figure is shown, and that is outside of this context.
                axes.tick_params(labelsize=style.small, width=0.6, length=2.5, colors=style.ink)
        return figure

    return drawn


class Shown(Figure):
    """A figure that notebooks show without `%matplotlib inline` as well, and that is written sooner."""

    def draw(self, renderer: Any) -> None:
        """Draws all of it; of the two times that matplotlib has a figure drawn that lays itself out and is written, the
        first, which nobody sees, is for the layout alone."""
        engine = self.get_layout_engine()
        if self.axes and self.canvas.is_saving() and isinstance(engine, ConstrainedLayoutEngine):
            engine.execute(self)
        else:
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(style: Style, width: float, height: float, *, itself: bool = True) -> Figure:
    """An empty figure, which lays itself out unless told otherwise; sizes in inches."""
    figure = Shown(figsize=(width, height), dpi=style.dpi, layout="constrained" if itself else None)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure in the format of the path's ending, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary)


def save_formats(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure for print as `stem`.png (300 dots per inch) and `stem`.pdf, each whole or not at all."""
    written = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf")]
    with PRINT.context():
        for path in written:
            save(figure, path)
    return written


def svg(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> str:
    """The SVG of a figure in the style of pages: text as text, its colours those of the page that it stands in.

    Args:
        draw: one of the functions of this package.
        arguments, options: what it takes beside the style.
    """
    buffer = io.StringIO()
    figure = draw(*arguments, style=PAGE, **options)
    with PAGE.context():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    own = hashlib.sha256(text.encode()).hexdigest()[:8]  # names that no other figure of the page has
    text = re.sub(r'id="([^"]+)"', rf'id="{own}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{own}-", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt"', r'\1style="max-width: \2pt"', text, count=1)
    text = text.replace("'DejaVu Sans'", "inherit")
    text = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, name in ((PAGE.ink, "ink"), (PAGE.rule, "rule"), *((shade, name) for name, shade in COLOURS.items())):
        text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
    return text


def letters(width: float, style: Style) -> int:
    """How many small letters fit in a width in inches: a letter of this font is some 0.58 of its height wide."""
    return max(1, int(width / (0.58 * style.small / 72)))


def legend(figure: Figure, entries: Mapping[str, Any], style: Style, loc: Any) -> None:
    """What the marks of a figure mean, outside its axes and in as many columns as fit.

    Args:
        figure: what they are in.
        entries: the marks by their labels.
        style: of the figure.
        loc: one of matplotlib's places outside.
    """
    most = max(map(len, entries), default=0) + 7  # the mark and the space between columns
    columns = max(1, min(4, letters(figure.get_figwidth(), style) // most))
    figure.legend(list(entries.values()), list(entries), loc=loc, ncols=columns, columnspacing=1, handletextpad=0.4)


def entries(*axes: Axes) -> dict[str, Any]:
    """The marks of axes by their labels, each label once."""
    known = [zip(*each.get_legend_handles_labels(), strict=True) for each in axes]
    return {label: handle for each in known for handle, label in each}


def time_axis(axes: Axes) -> None:
    """Time on the horizontal axis, in the direction of sampling."""
    axes.set_xlim(1, 0)
    axes.set_xlabel("time t, from 1 (noise) to 0 (image)")


def plain_logarithm(axis: Any) -> None:
    """Numbers as people write them beside a logarithmic axis, and not more than fit."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def percent(share: float, digits: int = 0) -> str:
    """A share as a percentage.

    >>> percent(1), percent(0.123, 1)
    ('100 %', '12.3 %')
    """
    return f"{100 * share:.{digits}f} %"


def plain(name: str, limit: int = 16) -> str:
    """A name that fits in one short line: without line breaks and what cannot be printed, cut with an ellipsis.

    >>> plain("two\\nlines", 5)
    'two …'
    """
    text = "".join(character if character.isprintable() else " " for character in name)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
