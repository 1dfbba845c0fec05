"""The compiled loops that scan: what codes of half a byte promise very many candidates, and which of them are drawn.

Everything is in bytes. What a code adds to the score of a candidate is looked up in a table of 16 within registers, 32
candidates at once; a higher score is a smaller weight. A candidate of score s above a threshold has the probability
2^(-FALL · (s - threshold)); whether it is drawn tells a number D from a geometric distribution of that ratio, for
P(D > t) = 2^(-FALL · t) for every whole t >= 0.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from elslightning.machines.compiling import inner
from elslightning.machines.lanes import PART, part

SCANNED = 32
"""Candidates at once."""
ENTRIES = PART
"""Codes that there are, of half a byte."""
UNIT = np.float32(0.25)
"""The power of two that a step of a score is worth, or so many times 4 that something is in reach."""
FALL = 0.125
"""The power of two by which a candidate is less likely for every step of its score: by the square root of what codes
promise, for they leave much out, and by less where steps are coarser, for there they leave out more."""
WORST = 255
"""The greatest score: that of all who are further away than bytes can tell."""
COARSEST = np.float32(64)
"""Steps are worth no more."""
REACHED = 192
"""A score below which the least one is, if steps are not to be coarser."""
_SINGLE = ("contract",)
_BYTE = ir.IntType(8)
_BYTES, _HALF = ir.VectorType(_BYTE, SCANNED), ir.VectorType(_BYTE, ENTRIES)


def _all(value: int) -> ir.Constant:
    return ir.Constant(_BYTES, [value] * SCANNED)


def _call(builder: Any, name: str, kind: ir.VectorType, *arguments: Any) -> Any:
    function = ir.FunctionType(kind, [kind] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _both(builder: Any, low: Any, high: Any) -> Any:
    """Two halves side by side."""
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), SCANNED), list(range(SCANNED))))


def _look_up(context: Any, builder: Any, table: Any, codes: Any) -> Any:
    """The entries of a table that codes name: an instruction where the processor has one."""
    triple, _, features = context.codegen().magic_tuple()
    if "+avx2" in features.split(","):
        return _call(builder, "llvm.x86.avx2.pshuf.b", _BYTES, _both(builder, table, table), codes)
    if triple.startswith(("aarch64", "arm64")):
        index = ir.VectorType(ir.IntType(32), ENTRIES)
        parts = (ir.Constant(index, list(range(start, start + ENTRIES))) for start in (0, ENTRIES))
        halves = (builder.shuffle_vector(codes, codes, part) for part in parts)
        return _both(builder, *(_call(builder, "llvm.aarch64.neon.tbl1.v16i8", _HALF, table, half) for half in halves))
    found = ir.Constant(_BYTES, ir.Undefined)
    for k in range(SCANNED):
        place = ir.Constant(ir.IntType(32), k)
        entry = builder.extract_element(table, builder.zext(builder.extract_element(codes, place), ir.IntType(32)))
        found = builder.insert_element(found, entry, place)
    return found


def _spread(builder: Any, byte: Any) -> Any:
    """A byte in all lanes."""
    undefined = ir.Constant(_BYTES, ir.Undefined)
    first = builder.insert_element(undefined, byte, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), SCANNED), [0] * SCANNED)
    return builder.shuffle_vector(first, undefined, zeros)


def _load(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: ir.VectorType) -> Any:
    data = context.make_array(kind)(context, builder, value=array).data
    return builder.load(builder.bitcast(builder.gep(data, [place]), vector.as_pointer()), align=1)


@intrinsic
def _add_up(context: Any, codes: Any, first: Any, tables: Any, pairs: Any, base: Any, scores: Any, place: Any) -> Any:
    """Scores of `SCANNED` candidates into `scores` (byte,) from `place` on: a base, and for each of the pairs of
    directions the entries of two tables that the halves of a byte name. From `first` on lie the bytes of one pair, then
    those of the next."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        codes, first, tables, pairs, base, scores, place = arguments
        total = cgutils.alloca_once_value(builder, _spread(builder, base))
        with cgutils.for_range(builder, pairs) as loop:
            at = builder.add(first, builder.mul(loop.index, loop.index.type(SCANNED)))
            both = _load(context, builder, signature.args[0], codes, at, _BYTES)
            low, high = builder.and_(both, _all(15)), builder.lshr(both, _all(4))
            for half, taken in enumerate((low, high)):
                row = builder.add(builder.mul(loop.index, loop.index.type(2)), loop.index.type(half))
                entry = builder.mul(row, loop.index.type(ENTRIES))
                table = _load(context, builder, signature.args[2], tables, entry, _HALF)
                found = _look_up(context, builder, table, taken)
                builder.store(_call(builder, "llvm.uadd.sat.v32i8", _BYTES, builder.load(total), found), total)
        into = context.make_array(signature.args[5])(context, builder, value=scores).data
        builder.store(builder.load(total), builder.bitcast(builder.gep(into, [place]), _BYTES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(codes, types.intp, tables, types.intp, types.uint8, scores, types.intp), build


@intrinsic
def _fill(context: Any, away: Any, step: Any, rate: Any, more: Any, tables: Any, row: Any) -> Any:
    """Row `row` of `tables` (row, ENTRIES) uint8: rate · (away - code · step)² + more, for each code, rounded down, and
    between 0 and `WORST`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *scalars, tables, row = arguments
        away, step, rate, more = (part.splat(builder, scalar) for scalar in scalars)
        code = ir.Constant(part.vector, [float(k) for k in range(ENTRIES)])
        here = builder.fsub(away, builder.fmul(code, step, flags=_SINGLE), flags=_SINGLE)
        score = builder.fadd(builder.fmul(builder.fmul(here, here), rate, flags=_SINGLE), more, flags=_SINGLE)
        for order, bound in (("<", part.constant(WORST)), (">", part.constant(0))):
            score = builder.select(builder.fcmp_ordered(order, score, bound), score, bound)
        data = context.make_array(signature.args[4])(context, builder, value=tables).data
        place = builder.gep(data, [builder.mul(row, row.type(ENTRIES))])
        whole = builder.fptosi(score, part.bits)
        builder.store(builder.trunc(whole, _HALF), builder.bitcast(place, _HALF.as_pointer()), align=1)
        return context.get_dummy_value()

    single = types.float32
    return types.void(single, single, single, single, tables, types.intp), build


@intrinsic
def _drawn(context: Any, scores: Any, place: Any, dice: Any, throw: Any, more: Any, less: Any, most: Any) -> Any:
    """A bit for each of `SCANNED` candidates: whether its die is above its score plus `more` less `less`, between 0 and
    `most`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, place, dice, throw, *bounds = arguments
        more, less, most = (_spread(builder, bound) for bound in bounds)
        away = _load(context, builder, signature.args[0], scores, place, _BYTES)
        away = _call(builder, "llvm.uadd.sat.v32i8", _BYTES, away, more)
        away = _call(builder, "llvm.usub.sat.v32i8", _BYTES, away, less)
        away = builder.select(builder.icmp_unsigned("<", away, most), away, most)
        thrown = _load(context, builder, signature.args[2], dice, throw, _BYTES)
        return builder.zext(
            builder.bitcast(builder.icmp_unsigned(">", thrown, away), ir.IntType(SCANNED)), ir.IntType(64)
        )

    single = types.uint8
    return types.int64(scores, types.intp, dice, types.intp, single, single, single), build


@intrinsic
def _lowest_bit(context: Any, bits: Any) -> Any:
    """Which is the lowest bit of a number that is not 0."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@inner
def _common(along: Any, centre: Any, step: Any, rate: Any, signal: Any) -> Any:
    """By how many powers of two every code of a direction lowers a weight at least."""
    beyond = abs(along - signal * centre) - np.float32(7.5) * signal * step
    beyond = beyond if beyond > np.float32(0.0) else np.float32(0.0)
    return rate * beyond * beyond


@inner
def nearness(along: Any, centre: Any, steps: Any, rate: Any, signal: Any) -> Any:
    """By how many powers of two every code of a cell is below the greatest weight that there can be.

    Args:
        along, centre: (direction,) what is asked, and the cell's centre, along principal directions.
        steps: (direction,) by which codes go.
        rate: by which a squared distance lowers the logarithm of a weight.
        signal: what candidates are multiplied with.
    """
    away = np.float32(0.0)
    for d in range(len(along)):
        away += _common(along[d], centre[d], steps[d], rate, signal)
    return away


@inner
def scan(
    along: Any,
    centre: Any,
    steps: Any,
    rate: Any,
    signal: Any,
    base: int,
    unit: Any,
    codes: Any,
    first: int,
    count: int,
    tables: Any,
    scores: Any,
    place: int,
) -> None:
    """The scores of the candidates of a cell, into `scores` (byte,) from `place` on; `SCANNED` more are lost.

    Args:
        along, centre, steps, rate, signal: as in `nearness`.
        base: the score of what the codes of the cell can promise at most.
        unit: the power of two that a step is worth.
        codes: (byte,) those of the cell begin at `first`: of each `SCANNED` of `count` candidates a byte for every two
            directions.
        tables: (2 · pairs, ENTRIES) uint8 for work, 0 for a direction that is not there.
    """
    directions = len(along)
    for d in range(directions):
        away, step = along[d] - signal * (centre[d] - np.float32(7.5) * steps[d]), signal * steps[d]
        least = _common(along[d], centre[d], steps[d], rate, signal)
        _fill(away, step, rate / unit, np.float32(0.5) - least / unit, tables, d)
    pairs = len(tables) // 2
    for start in range(0, count, SCANNED):
        _add_up(codes, first + start * pairs, tables, pairs, np.uint8(base), scores, place + start)


@inner
def _above(score: int, low: int, most: int) -> int:
    """How far a score is above a threshold, as `_drawn` has it."""
    return min(most, max(0, min(WORST, score + max(0, -low)) - max(0, low)))


@inner
def threshold(scores: Any, count: int, unit: Any, draws: Any, exploring: Any, sampled: int) -> tuple[int, int, Any]:
    """Such a threshold, perhaps below 0, that about so many candidates are drawn; how far above it none is less likely
    than `exploring` of the draws spread evenly; and which part of the weight that scores promise is not drawn.

    `sampled` of `count` scores (byte,), about, tell; `unit` as in `scan`.
    """
    step = 1 + count // sampled
    filled = np.zeros(WORST + 1)
    for k in range(0, count, step):
        filled[scores[k]] += step
    falling = np.empty(WORST + 1)
    for k in range(WORST + 1):
        falling[k] = 2.0 ** (-FALL * k)
    most = int(min(254.0, max(0.0, -np.log2(max(1e-30, exploring * draws / count)) / FALL)))
    low, high = -WORST, WORST
    while low < high:
        middle = (low + high) // 2
        wanted = 0.0
        for k in range(WORST + 1):
            wanted += filled[k] * falling[_above(k, middle, most)]
        if wanted < draws:
            low = middle + 1
        else:
            high = middle
    whole, missed = 0.0, 0.0
    for k in range(WORST + 1):
        weight = filled[k] * 2.0 ** (-unit * k)
        whole += weight
        missed += weight * (1 - falling[_above(k, low, most)])
    return low, most, missed / whole


@inner
def draw(
    scores: Any,
    place: int,
    count: int,
    dice: Any,
    turn: int,
    limits: Any,
    numbers: Any,
    first: int,
    chosen: Any,
    likely: Any,
    found: int,
) -> int:
    """Which candidates of a cell are drawn: their numbers into `chosen` from `found` on, how likely each was into
    `likely`. Returns how many there are now.

    Args:
        scores: (byte,) those of the cell from `place` on.
        dice: (byte,) numbers D; the cell begins at `turn`, and goes round.
        limits: a threshold, and how far above it none is less likely.
        numbers: of candidates, those of the cell from `first` on.
    """
    low, most = limits
    round_ = len(dice) - SCANNED
    more, less = np.uint8(max(0, -low)), np.uint8(max(0, low))
    for start in range(0, count, SCANNED):
        bits = _drawn(scores, place + start, dice, (turn + start) % round_, more, less, np.uint8(most))
        if count - start < SCANNED:
            bits &= (1 << (count - start)) - 1
        while bits != 0:
            k = start + _lowest_bit(bits)
            bits &= bits - 1
            chosen[found] = numbers[first + k]
            likely[found] = 2.0 ** (-FALL * _above(np.int64(scores[place + k]), low, most))
            found += 1
    return found
