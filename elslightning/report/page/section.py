"""What a report is made of: sections with words, tables, charts and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from elslightning.report.page.tables import Table


@dataclass(frozen=True)
class Chart:
    """A chart: SVG text, what it shows, and the same for whoever cannot see it."""

    svg: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A part of the report; whatever is empty is left out.

    Attributes:
        id, title: of the section.
        missing: why it is not there.
        texts: paragraphs.
        alarms: of a list that stands before everything else.
        points: of a list.
        tables, details: tables, shown and folded.
        pairs: what the gallery of pairs shows.
        works: what the gallery of samples shows.
        charts: what is drawn.
        explorer: whether the explorer stands here.
    """

    id: str
    title: str
    missing: str = ""
    texts: Sequence[str] = ()
    alarms: Sequence[str] = ()
    points: Sequence[str] = ()
    tables: Sequence[Table] = ()
    details: Sequence[Table] = ()
    pairs: Sequence[dict[str, Any]] = ()
    works: Sequence[dict[str, Any]] = ()
    charts: Sequence[Chart] = field(default=(), repr=False)
    explorer: bool = False
