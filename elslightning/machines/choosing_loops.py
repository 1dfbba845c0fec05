"""The compiled loops that choose the cells and the candidates that a tile looks at. Logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import compiled, inner
from elslightning.machines.lanes import COEFFICIENTS
from elslightning.machines.scanning_loops import (
    COARSEST,
    ENTRIES,
    REACHED,
    SCANNED,
    UNIT,
    WORST,
    draw,
    nearness,
    scan,
    threshold,
)

BINS = 512
"""Bins of logarithms: what is further below the greatest goes into the last."""
FINE = 4
"""Bins for each power of two."""
EXPLORING = np.float32(1 / 16)
"""The part of the draws that goes to all candidates alike, whatever is expected of them."""
LEAST = np.float32(1 / 8)
"""The part of the draws that goes to near cells, and the part to far ones, at least."""
SAMPLED = 2**13
"""Scores of which it is told how they spread."""
_0, _1, _2, _3, _4, _5 = (np.float32(c) for c in COEFFICIENTS)
_LOWEST, _HALF = np.float32(-126), np.float32(0.5)
GOLDEN = np.uint32(2654435769)
"""2^32 over the golden ratio: its multiples, modulo 2^32, are spread evenly."""


@inner
def _bin(log: Any, highest: Any) -> int:
    away = (highest - log) * np.float32(FINE)
    return int(away) if away < np.float32(BINS - 1) else BINS - 1


@inner
def _raise_two(powers: Any, bits: Any) -> None:
    """2^x of every float32 number (n,) that is at most 0, in place, with a relative error of about 2e-7; x counts as
    at least -126. `bits` is the same memory as int32."""
    for k in range(len(powers)):
        x = powers[k]
        x = x if x > _LOWEST else _LOWEST
        whole = np.floor(x + _HALF)
        y = x - whole
        exponent = np.int32(whole) << 23
        powers[k] = _0 + y * (_1 + y * (_2 + y * (_3 + y * (_4 + y * _5))))
        bits[k] += exponent


@inner
def choose_cells(
    expected: Any,
    bits: Any,
    sizes: Any,
    logs: Any,
    looked: int,
    draws: Any,
    chances: Any,
    turn: Any,
    near: Any,
    far: Any,
    counts: Any,
    likely: Any,
) -> tuple[int, int, Any, Any, Any]:
    """The cells to go through: those of the greatest expectation for each candidate, with `looked` candidates at most.
    Of the others some, with some draws from each, in proportion to what is expected of them.

    Args:
        expected, bits: (cell,) float32 logarithms of what a cell adds to the spread, and the same memory as int32;
            lost.
        sizes, logs: (cell,) candidates, and their logarithms, float32.
        draws: of both together.
        chances: (cell,) numbers in [0, 1): a fraction of a draw that is more than that counts as one.
        turn: a 32-bit number, of which the 2^32nd part is added to chances, modulo 1.
        near: (cell,) becomes the cells to go through.
        far, counts, likely: (cell,) become the cells to look into, the draws from each, and how likely each of its
            candidates is.

    Returns:
        How many near, how many far, how many draws are left for the near ones, which part of the spread is expected
        outside them, and the logarithm of all of it.
    """
    count = len(expected)
    highest, densest = np.float32(-1e30), np.float32(-1e30)
    for c in range(count):
        log, density = expected[c], expected[c] - logs[c]
        highest = log if log > highest else highest
        densest = density if density > densest else densest
    filled, whole = np.zeros(BINS, np.int64), 0
    for c in range(count):
        filled[_bin(expected[c] - logs[c], densest)] += sizes[c]
        whole += sizes[c]
    last, left = 0, looked
    while last < BINS - 1 and filled[last] <= left:
        left -= filled[last]
        last += 1
    # The cells of the last bin that are taken at all are taken in their order.
    close = 0
    for c in range(count):
        place = _bin(expected[c] - logs[c], densest)
        if sizes[c] > 0 and (place < last or (place == last and sizes[c] <= left)):
            left -= 0 if place < last else sizes[c]
            near[close] = c
            close += 1
        expected[c] -= highest
    _raise_two(expected, bits)
    inside = np.float32(0.0)
    for k in range(close):
        inside += expected[near[k]]
        expected[near[k]] = np.float32(0.0)
    outside = np.float32(0.0)
    for c in range(count):
        outside += expected[c]
    for k in range(close):
        expected[near[k]] = np.float32(-1.0)
    found, ahead = 0, np.float32(turn) / np.float32(2**32)
    beyond = outside / (inside + outside)
    most = draws * min(max(beyond, LEAST), np.float32(1) - LEAST) if outside > np.float32(0.0) else np.float32(0.0)
    part = (np.float32(1) - EXPLORING) * most / max(outside, np.float32(1e-30))
    alike = EXPLORING * most / np.float32(max(1, whole))
    for c in range(count):
        if expected[c] >= np.float32(0.0):
            wanted = min(expected[c] * part + alike * sizes[c], np.float32(sizes[c]))
            chance = chances[c] + ahead
            number = int(wanted + np.float32(1) - (chance - np.float32(int(chance))))
            if number > 0 and sizes[c] > 0:
                far[found], counts[found], likely[found] = c, min(number, sizes[c]), wanted / np.float32(sizes[c])
                found += 1
    return close, found, draws - most, beyond, highest + np.float32(np.log2(inside + outside))


@inner
def choose_candidates(
    near: Any,
    far: Any,
    counts: Any,
    apart: Any,
    along: Any,
    centres: Any,
    steps: Any,
    rate: Any,
    signal: Any,
    places: Any,
    codes: Any,
    numbers: Any,
    firsts: Any,
    offsets: Any,
    draws: Any,
    turn: Any,
    dice: Any,
    scores: Any,
    chosen: Any,
    likely: Any,
) -> tuple[int, Any]:
    """Candidates of the near cells, about so many `draws`, in proportion to a power of what their codes promise, and
    those of the far cells: their numbers into `chosen`, how likely each was into `likely`. Returns how many, and which
    part of the weight that near ones promise is in those that were not chosen.

    Args:
        near, far, counts, apart: as `choose_cells` finds them, the last as `likely`.
        along, centres, steps, rate, signal, codes: as in `scan`; those of a cell begin at `places` (cell,).
        numbers: all candidates, cell by cell, from `firsts` (cell + 1,).
        offsets: (cell,) which candidate of a far cell is drawn first.
        turn: a 32-bit number: at which die, and at which candidate of a far cell, to begin.
        dice: (byte,) as `draw` throws them.
        scores: (byte,) for work, as many as there are near, and `SCANNED` more.
    """
    pairs = (len(along) + 1) // 2
    tables = np.zeros((2 * pairs, ENTRIES), np.uint8)
    closest = np.float32(np.inf)
    away = np.empty(len(near), np.float32)
    for n in range(len(near)):
        away[n] = nearness(along, centres[near[n]], steps, rate, signal)
        closest = min(closest, away[n])
    unit = UNIT
    while True:
        count, least = 0, WORST
        for n in range(len(near)):
            cell = near[n]
            size = firsts[cell + 1] - firsts[cell]
            base = int(min(np.float32(WORST), (away[n] - closest) / unit))
            scan(
                along, centres[cell], steps, rate, signal, base, unit, codes, places[cell], size, tables, scores, count
            )
            count += size
        for k in range(count):
            least = min(least, scores[k])
        if least < REACHED or unit >= COARSEST:
            break
        unit *= np.float32(4.0)
    found, missed = 0, 0.0
    if count:
        low, most, missed = threshold(scores, count, unit, draws, EXPLORING, SAMPLED)
        at = 0
        for cell in near:
            first, size = firsts[cell], firsts[cell + 1] - firsts[cell]
            begin = np.int64(np.uint32(np.uint32(cell) * GOLDEN + turn)) % (len(dice) - SCANNED)
            found = draw(scores, at, size, dice, begin, (low, most), numbers, first, chosen, likely, found)
            at += size
    for k in range(len(far)):
        cell = far[k]
        first, size = firsts[cell], firsts[cell + 1] - firsts[cell]
        for j in range(counts[k]):
            chosen[found], likely[found] = numbers[first + (offsets[cell] + turn + j) % size], apart[k]
            found += 1
    return found, missed


@compiled
def choose_tiles(
    expected: Any,
    bits: Any,
    along: Any,
    looked: Any,
    draws: Any,
    turns: Any,
    index: Any,
    dice: Any,
    signal: Any,
    rate: Any,
    chosen: Any,
    likely: Any,
    starts: Any,
    counts: Any,
    outside: Any,
    promised: Any,
) -> int:
    """What tiles look at, one after the other, as long as there is room for it. Returns how many tiles that are.

    Args:
        expected, bits: (tile, cell) float32 as in `choose_cells`; lost.
        along: (tile, direction) as in `choose_candidates`.
        looked, draws: (tile,) how many candidates to go through, and how many to look at.
        turns: (tile,) uint32: tiles of the same number draw alike.
        index: of the cells, as in `choose_cells` and `choose_candidates`: sizes, logs, chances, centres, steps, places,
            codes, numbers, firsts, offsets.
        dice: as in `choose_candidates`.
        signal, rate: as there.
        chosen, likely: (room,) become the numbers of candidates, and how likely each was: room for what a tile goes
            through, a draw from every cell, and all its draws, at least.
        starts, counts: (tile,) become where among them those of a tile begin, and how many they are.
        outside, promised: (tile,) become the part of what is expected that is in candidates which were not chosen, and
            the logarithm of all of it.
    """
    sizes, logs, chances, centres, steps, places, codes, numbers, firsts, offsets = index
    near, far, each = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    probable = np.empty(len(sizes), np.float32)
    scores = np.empty(int(looked.max()) + SCANNED, np.uint8)
    done = 0
    for tile in range(len(along)):
        if done + looked[tile] + len(sizes) + draws[tile] > len(chosen):
            return tile
        close, apart, left, beyond, promised[tile] = choose_cells(
            expected[tile],
            bits[tile],
            sizes,
            logs,
            looked[tile],
            np.float32(draws[tile]),
            chances,
            turns[tile],
            near,
            far,
            each,
            probable,
        )
        found, missed = choose_candidates(
            near[:close],
            far[:apart],
            each,
            probable,
            along[tile],
            centres,
            steps,
            rate,
            signal,
            places,
            codes,
            numbers,
            firsts,
            offsets,
            left,
            turns[tile],
            dice,
            scores,
            chosen[done:],
            likely[done:],
        )
        outside[tile] = beyond + (1 - beyond) * missed
        starts[tile], counts[tile] = done, found
        done += found
    return len(along)
