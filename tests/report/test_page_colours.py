"""A page has the colours of every machine of the registry, on light and dark screens and on paper."""

import re

from elslightning.machines.registry import ENTRIES
from elslightning.report.page.page import render


def test_a_page_knows_the_colours_of_all_machines():
    page = render("title", "summary", [])
    (light, dark, paper) = re.findall(r":root \{((?: --\w+: #\w+;)+) \}", page)
    for text, shade in ((light, "on_light"), (dark, "on_dark"), (paper, "on_light")):
        found = dict(re.findall(r"--(\w+): (#\w+);", text))
        assert found == {entry.name: getattr(entry, shade) for entry in ENTRIES}
    assert page.index(light) < page.index("prefers-color-scheme: dark") < page.index(dark) < page.index("@media print")
