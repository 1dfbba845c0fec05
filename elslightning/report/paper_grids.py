"""The paper's figures of samples side by side: images in, matplotlib figures out (Kamb & Ganguli 2025)."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from elslightning.machines.registry import display_name
from elslightning.report.paper_style import COLUMN, PAGE, Sheet, plain, styled

LINES_PER_PAGE = 10


@styled
def pairs(
    network: np.ndarray,
    machines: Mapping[str, np.ndarray],
    r: Mapping[str, np.ndarray],
    *,
    theory: str,
    steps: int,
    names: Sequence[str] | None = None,
    count: int = 6,
) -> Figure:
    """Fig. 5: samples from the same noise, the network's on top, and beneath them every machine's with its Pearson r.

    Pairs are not picked: they stand in the order of the theory's r, and the ranks shown are evenly spread from the best
    to the worst.

    Args:
        network: (pairs, channel, height, width) in [-1, 1].
        machines: alike, by name.
        r: (pairs,) of each machine with the network.
        theory: the machine by whose r the pairs are ranked.
        steps: of the network.
        names: the class of every pair, for a conditional network.
        count: number of pairs; fewer if there are fewer.
    """
    order = np.argsort(-r[theory], kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    left, top, gap, under = 0.62, 0.2 if names is None else 0.34, 0.035, 0.13
    side = (COLUMN - left - 0.02) / count - gap
    height = side * network.shape[2] / network.shape[3]
    rows: dict[str, tuple[np.ndarray, np.ndarray | None]] = {f"network\n{steps} steps": (network, None)}
    rows |= {display_name(name): (samples, r[name]) for name, samples in machines.items()}
    total = top + height + gap + len(machines) * (height + under + gap)
    sheet = Sheet(left + len(ranks) * (side + gap) + 0.02, total)
    sheet.text("rank of r", 0.02, 0.1, ha="left")
    if names is not None:
        sheet.text("class", 0.02, 0.24, ha="left")
    for column, rank in enumerate(ranks):
        x = left + column * (side + gap)
        sheet.text(f"{rank + 1} of {len(order)}" if column == len(ranks) - 1 > 0 else f"{rank + 1}", x + side / 2, 0.1)
        if names is not None:
            sheet.text(plain(names[order[rank]], 9), x + side / 2, 0.24)
        y = top
        for samples, values in rows.values():
            sheet.image(samples[order[rank]], x, y, side)
            y += height + gap
            if values is not None:
                sheet.text(f"{values[order[rank]]:.2f}", x + side / 2, y + under / 2 - gap / 2)
                y += under
    y = top
    for name, (_, values) in rows.items():
        sheet.text(name, 0.02, y + height / 2, ha="left", fontsize=7)
        y += height + gap + (0 if values is None else under)
        if values is not None:
            sheet.text("r =", left - 0.04, y - under / 2 - gap / 2, ha="right")
    return sheet.figure


def grids(
    network: np.ndarray,
    machines: Mapping[str, np.ndarray],
    r: Mapping[str, np.ndarray],
    *,
    steps: int,
    names: Sequence[str] | None = None,
    columns: int = 6,
) -> Iterator[Figure]:
    """Figs. 10–12: many pairs, a line per class, each as theory, network and IS side by side with their Pearson r.

    The pairs are the first of every class, in the order of their noises; without classes, the first of all.

    Args:
        network: (pairs, channel, height, width) in [-1, 1].
        machines: alike, the theory first, and IS after it if it was compared.
        r: (pairs,) of each machine with the network.
        steps: of the network.
        names: the class of every pair, for a conditional network.
        columns: pairs in a line.

    Returns:
        As many pages as the classes need, of 10 lines each; without classes, one.
    """
    lines: list[tuple[str, list[int]]]
    if names is None:
        some = range(min(len(network), LINES_PER_PAGE * columns))
        lines = [
            (f"{start + 1}–{min(start + columns, len(some))}", list(some[start : start + columns]))
            for start in some[::columns]
        ]
    else:
        members: dict[str, list[int]] = {}
        for pair, name in enumerate(names):
            members.setdefault(name, []).append(pair)
        lines = [(name, of_class[:columns]) for name, of_class in members.items()]
    for start in range(0, len(lines), LINES_PER_PAGE):
        yield _page(network, machines, r, lines[start : start + LINES_PER_PAGE], steps, "class" if names else "pairs")


@styled
def _page(
    network: np.ndarray,
    machines: Mapping[str, np.ndarray],
    r: Mapping[str, np.ndarray],
    lines: Sequence[tuple[str, list[int]]],
    steps: int,
    title: str,
) -> Figure:
    theory, *others = machines
    shown: list[str | None] = [theory, None, *others]  # None: the network
    columns = max(len(pairs) for _, pairs in lines)
    left, top, between, under = 0.72, 0.3, 0.1, 0.14
    block = (PAGE - left) / max(columns, 6) - between
    side = block / len(shown)
    height = side * network.shape[2] / network.shape[3]
    sheet = Sheet(left + columns * (block + between), top + len(lines) * (height + under) + 0.02)
    sheet.text(title, 0.02, 0.2, ha="left", fontsize=7)
    words = ["network" if name is None else display_name(name) for name in shown]
    for column in range(columns):
        sheet.text(" | ".join(words), left + column * (block + between) + block / 2, 0.2, fontsize=5.5)
    sheet.text(f"r with the network ({steps} steps) beneath", left, 0.06, ha="left")
    for line, (name, pairs) in enumerate(lines):
        y = top + line * (height + under)
        sheet.text(plain(name, 11), 0.02, y + height / 2, ha="left", fontsize=7)
        for column, pair in enumerate(pairs):
            for place, machine in enumerate(shown):
                x = left + column * (block + between) + place * side
                sheet.image((network if machine is None else machines[machine])[pair], x, y, side - 0.01)
                if machine is not None:
                    sheet.text(f"{r[machine][pair]:.2f}", x + side / 2, y + height + under / 2 - 0.01, fontsize=5.5)
    return sheet.figure
