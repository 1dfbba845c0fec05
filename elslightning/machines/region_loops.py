"""Regions of images of bytes, side by side: their pixels as vectors, one number for each of `PART` regions; and which
of them count, and how much."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from elslightning.machines.compiling import inner
from elslightning.machines.index_loops import take_patches
from elslightning.machines.lanes import PART, part

BARRED = np.float32(1e30)
"""Lowers the log-weight of what is no candidate of a pixel."""
LINE = 64
"""Bytes of a line of the cache."""
_SINGLE = ("contract",)


def _turned(builder: Any, rows: list[Any], columns: int) -> list[Any]:
    """The first columns of `PART` rows of bytes, in log2(PART) rounds of interleaving rows that are half of them apart.
    Of what is interleaved only the lower half counts as long as no more is known."""
    index = ir.VectorType(ir.IntType(32), PART)
    half = PART // 2
    low = ir.Constant(index, [k // 2 + PART * (k % 2) for k in range(PART)])
    high = ir.Constant(index, [half + k // 2 + PART * (k % 2) for k in range(PART)])
    known = columns
    for _ in range(PART.bit_length() - 1):
        pairs = list(zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True))
        masks = (low, high) if known == PART else (low,)
        rows = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in masks]
        known = min(PART, 2 * known)
    return rows


def _taking(columns: int) -> Any:
    @intrinsic
    def take(context: Any, memory: Any, places: Any, offset: Any, scale: Any, shift: Any, out: Any, row: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory, places, offset, scale, shift, out, row = arguments
            data, first, into = (
                context.make_array(kind)(context, builder, value=value).data
                for kind, value in ((signature.args[0], memory), (signature.args[1], places), (signature.args[5], out))
            )
            bytes_ = ir.VectorType(ir.IntType(8), columns)
            wider = ir.Constant(ir.VectorType(ir.IntType(32), PART), [min(k, columns) for k in range(PART)])
            rows = []
            for k in range(PART):
                place = builder.load(builder.gep(first, [ir.Constant(row.type, k)]))
                start = builder.gep(data, [builder.add(place, offset)])
                few = builder.load(builder.bitcast(start, bytes_.as_pointer()), align=1)
                rows.append(builder.shuffle_vector(few, ir.Constant(bytes_, ir.Undefined), wider))
            times, plus = part.splat(builder, scale), part.splat(builder, shift)
            for column, numbers in enumerate(_turned(builder, rows, columns)):
                values = builder.uitofp(numbers, part.vector)
                values = builder.fadd(builder.fmul(values, times, flags=_SINGLE), plus, flags=_SINGLE)
                start = builder.mul(builder.add(row, ir.Constant(row.type, column)), ir.Constant(row.type, PART))
                builder.store(values, builder.bitcast(builder.gep(into, [start]), part.vector.as_pointer()), align=4)
            return context.get_dummy_value()

        signature = types.void(memory, places, types.intp, types.float32, types.float32, out, types.intp)
        return signature, build

    return take


_take_square, _take_half, _take_quarter = _taking(PART), _taking(PART // 2), _taking(PART // 4)
"""Bytes `offset + column` beyond each of `PART` places of memory (byte,), for so many columns: times a number and plus
another into rows `row + column` of `out` (n, PART) float32."""


@intrinsic
def prefetch(context: Any, memory: Any, place: Any) -> Any:
    """Lets the cache fetch what lies at a place of memory (byte,)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        where = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        builder.call(function, [where, *(ir.Constant(number, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(memory, types.intp), build


@inner
def take_regions(
    memory: Any, places: Any, across: int, plane: int, shape: Any, beyond: Any, scale: Any, shift: Any, out: Any
) -> None:
    """`PART` regions of images of bytes, into the first rows of `out` (n, PART) float32.

    Args:
        memory: (byte,) images, and beyond them on either side as much as a region may reach.
        places: (PART,) int64 where in it the regions begin.
        across, plane: bytes from one row of an image to the next, and from one channel to the next.
        shape: channels, height and width of a region.
        beyond: (pixel,) those of a region, row by row, that are beyond the border, and 0.
        scale, shift: what a byte is multiplied with, and then what is added.
        out: has `PART` rows more than regions have pixels, which are for work.
    """
    channels, height, width = shape
    for c in range(channels):
        for y in range(height):
            for x in range(0, width, PART):
                offset = c * plane + y * across + x
                row, left = (c * height + y) * width + x, width - x
                if left > PART // 2:
                    _take_square(memory, places, offset, scale, shift, out, row)
                elif left > PART // 4:
                    _take_half(memory, places, offset, scale, shift, out, row)
                else:
                    _take_quarter(memory, places, offset, scale, shift, out, row)
    for k in beyond:
        for c in range(channels):
            out[c * height * width + k] = np.float32(0.0)


@inner
def make_room(channels: int, shape: Any, counts: Any) -> Any:
    """What `take_block` fills for tiles that look at so many candidates (tile,): `block` (region + PART, PART), whose
    first rows become regions; `barred` (rows + columns, PART), above 0 for what is no candidate of a row of the tile,
    or of a column; `over` (2, PART), of the probability p of each 1/p and sqrt(1 - p)/p; and room for work."""
    height, width, rows, columns, _ = shape
    block = np.empty((channels * height * width + PART, PART), np.float32)
    barred = np.empty((rows + columns, PART), np.float32)
    over = np.empty((2, PART), np.float32)
    most = 0
    for count in counts:
        most = max(most, count)
    return block, barred, over, np.empty(most, np.int64), np.empty(PART, np.int64), np.empty(PART, np.int64)


@inner
def locate(numbers: Any, first: int, count: int, source: Any, room: Any) -> None:
    """Where the regions of the candidates of a tile begin, those of `numbers` from `first` on."""
    bank, members, table, origins = source[0], source[1], source[2], source[4]
    spots, locations, image = room[3], len(table), bank.shape[1] * bank.shape[2]
    if len(origins):
        for k in range(count):
            number = numbers[first + k]
            spots[k] = (members[number // locations] + 1) * image + origins[number % locations]


@inner
def take_block(
    numbers: Any,
    likely: Any,
    first: int,
    start: int,
    count: int,
    source: Any,
    shape: Any,
    across: int,
    signal: Any,
    room: Any,
) -> None:
    """`PART` of the candidates of a tile, from `start` on, into what `make_room` made; those after the last are barred.

    Args:
        numbers, likely: patch numbers, and how likely each was looked at; those of the tile, `count`, from `first` on.
        source: bank, members, table, levels as in `take_patches`; origins, (location,) where in an image the region
            around a location begins, if it lies in the image as it is: the bank is of bytes then, with an image more at
            either end; otherwise without entries; beyond, as in `take_regions`; and below and beside, (row of
            locations, row of a tile) and (column of locations, column of a tile) 0 where that row or column of a region
            is made of candidates, and otherwise `BARRED`, float32.
        shape: height and width of a region, rows and columns of its tile, patch size.
        across: pixels of a row of an image.
        signal: what regions are multiplied with.
    """
    bank, members, table, levels, origins, beyond, below, beside = source
    block, barred, over, spots, places, drawn = room
    channels, plane, locations = bank.shape[1], bank.shape[2], len(table)
    height, width, rows, columns, _ = shape
    here = min(PART, count - start)
    for j in range(PART):
        at = first + start + min(j, here - 1)
        chance, location = likely[at], numbers[at] % locations
        drawn[j] = numbers[at]
        over[0, j] = np.float32(1.0) / chance
        over[1, j] = np.sqrt(np.float32(1.0) - chance) / chance
        for y in range(rows):
            barred[y, j] = below[location // len(beside), y] if j < here else BARRED
        for x in range(columns):
            barred[rows + x, j] = beside[location % len(beside), x]
    if len(origins):
        memory, reach = bank.reshape(-1), (height - 1) * across + width
        for j in range(PART):
            places[j] = spots[start + min(j, here - 1)]
        # Those of the next block are fetched while this one is worked on.
        for k in range(start + PART, min(start + 2 * PART, count)):
            for c in range(channels):
                for line in range(0, reach, LINE):
                    prefetch(memory, spots[k] + c * plane + line)
        factor = signal / np.float32(127.5)
        take_regions(memory, places, across, plane, (channels, height, width), beyond, factor, -signal, block)
    else:
        take_patches(bank, members, table, drawn, levels, signal, block[: channels * height * width].T)
