"""The compiled loops that choose: which cells a tile of pixels goes through, which of the others it looks into, and
which candidates it looks at. Logarithms are to base 2."""

from typing import Any

import numpy as np

from elslightning.machines.compiling import inner
from elslightning.machines.lanes import (
    COEFFICIENTS,
    PART,
    any_below,
    high_codes,
    load_part,
    low_codes,
    splat_part,
    spread_part,
    store,
)

BINS = 512
"""Bins of logarithms: what is further below the greatest goes into the last."""
FINE = 4
"""Bins for each power of two."""
EXPLORING = np.float32(1 / 16)
"""The part of the draws that goes to all candidates alike, whatever is expected of them."""
LEAST = np.float32(1 / 8)
"""The part of the draws that goes to near cells, and the part to far ones, at least."""
TEMPER = np.float32(0.5)
"""Draws are in proportion to this power of what codes promise, for they leave much out."""
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
    filled = np.zeros(BINS, np.int64)
    whole = 0
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
    found = 0
    beyond = outside / (inside + outside)
    most = draws * min(max(beyond, LEAST), np.float32(1) - LEAST) if outside > np.float32(0.0) else np.float32(0.0)
    part = (np.float32(1) - EXPLORING) * most / max(outside, np.float32(1e-30))
    alike = EXPLORING * most / np.float32(max(1, whole))
    for c in range(count):
        if expected[c] >= np.float32(0.0):
            wanted = min(expected[c] * part + alike * sizes[c], np.float32(sizes[c]))
            number = int(wanted + np.float32(1) - chances[c])
            if number > 0 and sizes[c] > 0:
                far[found], counts[found], likely[found] = c, min(number, sizes[c]), wanted / np.float32(sizes[c])
                found += 1
    return close, found, draws - most, beyond, highest + np.float32(np.log2(inside + outside))


@inner
def _score(
    along: Any,
    centre: Any,
    steps: Any,
    rate: Any,
    signal: Any,
    codes: Any,
    first: int,
    count: int,
    pair: Any,
    into: Any,
) -> None:
    """The log-weights that codes promise the candidates of a cell: `into` (candidate,), of which `PART` more are lost.

    Args:
        along, centre: (direction,) what is asked, and the cell's centre, along principal directions.
        steps: (direction,) by which codes go.
        codes: (byte,) those of the cell begin at `first`: for each two directions a byte of each of `count` candidates.
        pair: (2, direction) float32, for work.
    """
    constant = np.float32(0.0)
    directions = len(along)
    for d in range(directions):
        away = along[d] - signal * (centre[d] - np.float32(7.5) * steps[d])
        step = signal * steps[d]
        constant -= rate * away * away
        pair[0, d], pair[1, d] = np.float32(2.0) * rate * away * step, -rate * step * step
    for start in range(0, count, PART):
        score = splat_part(constant)
        for k in range((directions + 1) // 2):
            place = first + k * count + start
            low = low_codes(codes, place)
            score = score + low * (spread_part(pair, 2 * k) + low * spread_part(pair, pair.shape[1] + 2 * k))
            high = high_codes(codes, place)
            score = score + high * (spread_part(pair, 2 * k + 1) + high * spread_part(pair, pair.shape[1] + 2 * k + 1))
        store(into[start : start + PART], 0, score)


@inner
def _scale(scores: Any, count: int, highest: Any, draws: Any) -> tuple[Any, Any]:
    """The logarithm of what 2^(TEMPER · (score - highest)) is multiplied with, so that probabilities of at most 1
    amount to about so many draws, infinite where all are drawn; and which part of the weight that scores promise is not
    drawn. Of many scores some tell."""
    step = 1 + count // SAMPLED
    filled, drawn = np.zeros(BINS, np.int64), np.empty(BINS)
    for k in range(0, count, step):
        filled[_bin(scores[k], highest)] += step
    tail = 0.0
    for b in range(BINS):
        drawn[b] = 2.0 ** (-TEMPER * (b + 0.5) / FINE)
        tail += filled[b] * drawn[b]
    left, factor = np.float64(draws), np.inf
    for b in range(BINS):
        if left <= 0.0 or tail <= 0.0:
            break
        if left * drawn[b] <= tail:
            factor = left / tail
            break
        left -= filled[b]
        tail -= filled[b] * drawn[b]
    whole, missed = 0.0, 0.0
    for b in range(BINS):
        weight = filled[b] * 2.0 ** (-(b + 0.5) / FINE)
        whole += weight
        missed += weight * max(0.0, 1.0 - factor * drawn[b])
    return np.float32(np.log2(factor)), missed / whole


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
    codes: Any,
    numbers: Any,
    firsts: Any,
    offsets: Any,
    draws: Any,
    seed: Any,
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
        along, centres, steps, rate, signal, codes: as in `_score`.
        numbers: all candidates, cell by cell, from `firsts` (cell + 1,).
        offsets: (cell,) which candidate of a far cell is drawn first.
        seed, dice: logarithms of many numbers that are spread evenly in (0, 1), in random order: of the candidates of a
            cell from one on that the seed tells.
        scores: (candidate,) float32 for work, as many as there are near, and `PART` more.
    """
    directions = len(along)
    half = (directions + 1) // 2
    pair = np.zeros((2, 2 * half), np.float32)
    count = 0
    for cell in near:
        size = firsts[cell + 1] - firsts[cell]
        first = half * firsts[cell]
        _score(along, centres[cell], steps, rate, signal, codes, first, size, pair, scores[count:])
        count += size
    found = 0
    highest = np.float32(-np.inf)
    for k in range(count):
        highest = scores[k] if scores[k] > highest else highest
    scale, missed = np.float32(np.inf), 0.0
    if count:
        scale, missed = _scale(scores, count, highest, draws)
    if scale == np.float32(np.inf):
        for cell in near:
            for position in range(firsts[cell], firsts[cell + 1]):
                chosen[found], likely[found] = numbers[position], np.float32(1.0)
                found += 1
    else:
        shift = scale - TEMPER * highest
        slope, above = splat_part(TEMPER), splat_part(shift)
        alike = np.float32(np.log2(EXPLORING * draws / count))
        at = 0
        for cell in near:
            first, size = firsts[cell], firsts[cell + 1] - firsts[cell]
            turn = np.int64(np.uint32(np.uint32(cell) * GOLDEN + seed)) % (len(dice) - 2 * PART)
            for start in range(0, size, PART):
                throw = (turn + start) % (len(dice) - 2 * PART)
                rolled = load_part(dice[throw:], 0)
                beyond = rolled - (load_part(scores[at + start :], 0) * slope + above)
                if any_below(beyond, np.float32(0.0)) or any_below(rolled, alike):
                    for k in range(min(PART, size - start)):
                        log = max(alike, scores[at + start + k] * TEMPER + shift)
                        if dice[throw + k] < log:
                            chosen[found] = numbers[first + start + k]
                            likely[found] = np.float32(2.0) ** min(log, np.float32(0.0))
                            found += 1
            at += size
    for k in range(len(far)):
        cell = far[k]
        first, size = firsts[cell], firsts[cell + 1] - firsts[cell]
        for j in range(counts[k]):
            chosen[found], likely[found] = numbers[first + (offsets[cell] + j) % size], apart[k]
            found += 1
    return found, missed
