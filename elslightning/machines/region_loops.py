"""Regions of images of bytes, side by side: their pixels as vectors, one number for each of `PART` regions."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from elslightning.machines.compiling import inner
from elslightning.machines.lanes import PART, part

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
