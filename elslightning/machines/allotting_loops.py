"""The compiled loops that allot draws: how many candidates of each cell a tile of pixels looks at. Logarithms are to
base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import COEFFICIENTS, PART

DOUBT = np.float32(1 / 2)
"""Of what was expected of a cell so much remains, however little was seen there: draws may have missed the heaviest."""

_0, _1, _2, _3, _4, _5 = (np.float32(c) for c in COEFFICIENTS)
_LOWEST, _HALF = np.float32(-126), np.float32(0.5)


@inner
def _raise_two(powers: Any, bits: Any, exponents: Any) -> None:
    """2^x of every float32 number (n,) that is at most 0, in place, with a relative error of about 2e-7; x counts as
    at least -126. `bits` is the same memory as int32; `exponents` (n,) int32 is for work."""
    for k in range(len(powers)):
        x = powers[k]
        x = x if x > _LOWEST else _LOWEST
        whole = np.floor(x + _HALF)
        y = x - whole
        powers[k] = _0 + y * (_1 + y * (_2 + y * (_3 + y * (_4 + y * _5))))
        exponents[k] = np.int32(whole) << 23
    for k in range(len(powers)):
        bits[k] += exponents[k]


@compiled
def allot(
    expected: Any,
    bits: Any,
    budgets: Any,
    floors: Any,
    sizes: Any,
    fewest: Any,
    thresholds: Any,
    starts: Any,
    cells: Any,
    seen: Any,
    counts: Any,
    missed: Any,
    logs: Any,
) -> None:
    """How many candidates of each cell a tile should draw, in place of `expected` (tile, cell) float32: logarithms of
    what a cell adds to the spread, of which shares of the budget (tile,) are made; none below the tile's floor.

    What a tile has seen before counts instead of what was expected, if it is not much less: from `starts` (tile + 1,)
    of each in `cells` and `seen`, parts of the whole. A cell is visited if its share exceeds `thresholds` (cell,),
    numbers below `fewest` (cell,). `counts` (tile,): how many are. `missed` (tile,): of the whole spread, as it is
    expected, the part in candidates that are not drawn; `logs` (tile,): the logarithm of the whole.
    """
    exponents = np.empty(expected.shape[1], np.int32)
    for q in range(len(expected)):
        row = expected[q]
        highest = row.max()
        for c in range(len(row)):
            row[c] -= highest
        _raise_two(row, bits[q], exponents)
        whole = np.float32(0.0)
        for c in range(len(row)):
            whole += row[c]
        logs[q] = highest + np.log2(whole)
        if starts[q] < starts[q + 1]:
            for k in range(starts[q], starts[q + 1]):
                row[cells[k]] = max(seen[k] * whole, DOUBT * row[cells[k]])
            whole = np.float32(0.0)
            for c in range(len(row)):
                whole += row[c]
        share, floor = np.float32(budgets[q] / whole), np.float32(floors[q])
        left, visits = np.float32(0.0), 0
        for c in range(len(row)):
            wanted = row[c] * share
            part = row[c]
            wanted = wanted if wanted > floor else floor
            size = np.float32(sizes[c])
            # As `list_visits` has it: all of a cell that is visited for certain, and of which half is wanted.
            partly = 2 * wanted < size or wanted < fewest[c]
            left += part * (np.float32(1.0) - wanted / size) if partly else np.float32(0.0)
            row[c] = wanted
            visits += wanted > thresholds[c]
        counts[q], missed[q] = visits, left / whole


@compiled
def list_visits(
    shares: Any,
    sizes: Any,
    fewest: Any,
    thresholds: Any,
    first: int,
    cells: Any,
    queries: Any,
    counts: Any,
    probable: Any,
) -> None:
    """The visits of tiles numbered from `first`, as `allot` counts them: to which cell, of which tile, how many draws
    there, in steps of `PART` or all, and how probable it was."""
    v = 0
    for q in range(len(shares)):
        for c in range(shares.shape[1]):
            if shares[q, c] > thresholds[c]:
                share, size = shares[q, c], sizes[c]
                number = np.int64(-(-share // PART)) * PART
                cells[v], queries[v] = c, first + q
                counts[v] = size if 2 * number >= size else number
                probable[v] = min(1.0, share / fewest[c])
                v += 1


@compiled
def sort_visits(cells: Any, counts: Any, starts: Any, order: Any) -> None:
    """`order` of visits, cell by cell, those with many draws first; `starts` (cell + 1,) where those of each begin."""
    starts[:] = 0
    for v in range(len(cells)):
        starts[cells[v] + 1] += 1
    for c in range(len(starts) - 1):
        starts[c + 1] += starts[c]
    place = starts[:-1].copy()
    for v in range(len(cells)):
        order[place[cells[v]]] = v
        place[cells[v]] += 1
    for c in range(len(starts) - 1):
        mine = order[starts[c] : starts[c + 1]]
        if len(mine) > 1:
            mine[:] = mine[np.argsort(-counts[mine], kind="mergesort")]
