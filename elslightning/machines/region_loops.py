"""Regions of images of bytes, side by side: their pixels as vectors, one number for each of `PART` regions."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from elslightning.machines.compiling import inner
from elslightning.machines.lanes import PART, part

_SINGLE = ("contract",)


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of bytes, in log2(PART) rounds of interleaving rows that are half of them apart."""
    index = ir.VectorType(ir.IntType(32), PART)
    half = PART // 2
    low = ir.Constant(index, [k // 2 + PART * (k % 2) for k in range(PART)])
    high = ir.Constant(index, [half + k // 2 + PART * (k % 2) for k in range(PART)])
    for _ in range(PART.bit_length() - 1):
        pairs = list(zip(rows[:half], rows[half:], strict=True))
        rows = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in (low, high)]
    return rows


@intrinsic
def _take_square(
    context: Any, memory: Any, places: Any, offset: Any, scale: Any, shift: Any, out: Any, row: Any
) -> Any:
    """Bytes `offset + column` beyond each of `PART` places of memory (byte,), for `PART` columns: times a number and
    plus another into rows `row + column` of `out` (n, PART) float32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, places, offset, scale, shift, out, row = arguments
        data, first, into = (
            context.make_array(kind)(context, builder, value=value).data
            for kind, value in ((signature.args[0], memory), (signature.args[1], places), (signature.args[5], out))
        )
        bytes_ = ir.VectorType(ir.IntType(8), PART)
        rows = []
        for k in range(PART):
            place = builder.load(builder.gep(first, [ir.Constant(row.type, k)]))
            start = builder.gep(data, [builder.add(place, offset)])
            rows.append(builder.load(builder.bitcast(start, bytes_.as_pointer()), align=1))
        times, plus = part.splat(builder, scale), part.splat(builder, shift)
        for column, numbers in enumerate(_turned(builder, rows)):
            values = builder.uitofp(numbers, part.vector)
            values = builder.fadd(builder.fmul(values, times, flags=_SINGLE), plus, flags=_SINGLE)
            start = builder.mul(builder.add(row, ir.Constant(row.type, column)), ir.Constant(row.type, PART))
            builder.store(values, builder.bitcast(builder.gep(into, [start]), part.vector.as_pointer()), align=4)
        return context.get_dummy_value()

    signature = types.void(memory, places, types.intp, types.float32, types.float32, out, types.intp)
    return signature, build


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
                _take_square(memory, places, offset, scale, shift, out, (c * height + y) * width + x)
    for k in beyond:
        for c in range(channels):
            out[c * height * width + k] = np.float32(0.0)
