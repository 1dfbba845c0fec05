"""Reports as Markdown, for pull requests."""

import html
import re
from collections.abc import Sequence

from elslightning.report.page.section import Section
from elslightning.report.page.tables import Table


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line: neither markup nor HTML nor the end of a cell.

    >>> escape("a|b <script> *c*")
    'a\\\\|b &lt;script&gt; \\\\*c\\\\*'
    """
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def table(content: Table) -> str:
    """A table, its caption above; the strong column in bold."""
    side = ":--" if content.words else "--:"
    lines = [
        escape(content.caption),
        "",
        _row(content.head),
        _row([":--", *[side] * (len(content.head) - 1)], raw=True),
    ]
    for row in content.rows:
        cells = [escape(cell) for cell in row]
        if content.strong is not None:
            cells[content.strong] = f"**{cells[content.strong]}**"
        lines.append(_row(cells, raw=True))
    return "\n".join(lines)


def _row(cells: Sequence[str], raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(escape, cells))} |"


def document(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The words and tables of a report; sections with pictures only are left to its HTML."""
    parts = [f"# {escape(title)}", escape(lead)]
    for section in sections:
        body = [escape(section.missing)] if section.missing else []
        body += ["\n".join(f"- **{escape(item)}**" for item in section.alarms)] if section.alarms else []
        body += [escape(text) for text in section.texts if section.tables or section.details]
        body += ["\n".join(f"- {escape(item)}" for item in section.points)] if section.points else []
        body += [table(content) for content in (*section.tables, *section.details)]
        if body:
            parts += [f"## {escape(section.title)}", *body]
    return "\n\n".join(parts) + "\n"
