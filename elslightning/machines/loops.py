"""The compiled loops of the patch machines, over a vector of float32 lanes as a type of compiled code.

Loops over a few dozen numbers spend more time on checking that arrays do not overlap than on arithmetic, and the
compiler unrolls the short ones into scalars. Here one value holds the same number of `LANES` training images, and
its operators are single vector instructions on whatever width the processor has. The type stands in one file with
the loops because compiled code is cached by the file it is in.
"""

import operator
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 64
"""Training images side by side."""

NO_CANDIDATE = np.float32(1e30)
"""The squared distance of the nearest candidate where there is none yet."""

_FAST = ("nnan", "ninf", "nsz", "contract", "reassoc", "arcp")
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)

# 2^x on [-1/2, 1/2], to float32's rounding.
_COEFFICIENTS = (
    np.polynomial.Chebyshev.interpolate(lambda x: 2.0**x, 5, domain=[-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef
)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


lanes_type = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end_type: Any) -> None:
        super().__init__(manager, front_end_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _splat(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_BITS, [0] * LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Where a row of LANES numbers of a C-contiguous array begins."""
    data = context.make_array(array_type)(context, builder, value=array).data
    start = builder.mul(row, ir.Constant(row.type, LANES))
    return builder.bitcast(builder.gep(data, [start]), _VECTOR.as_pointer())


@intrinsic
def load(context: Any, array: Any, row: Any) -> Any:
    """Row `row` of a C-contiguous float32 array whose last dimension is LANES, counted over all dimensions."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=4)

    return lanes_type(array, types.intp), build


@intrinsic
def store(context: Any, array: Any, row: Any, value: Any) -> Any:
    """Writes a row, counted as by `load`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, position, vector = arguments
        builder.store(vector, _pointer(context, builder, signature.args[0], target, position), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes_type), build


@intrinsic
def splat(context: Any, scalar: Any) -> Any:
    """All lanes the same."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return lanes_type(types.float32), build


def _reduction(name: str, *start: float) -> Callable[..., Any]:
    @intrinsic
    def reduce(context: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scalars = [ir.Constant(ir.FloatType(), number) for number in start]
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * len(start) + [_VECTOR])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v{LANES}f32")
            return builder.call(function, [*scalars, *arguments], fastmath=_FAST)

        return types.float32(lanes_type), build

    return reduce


total = _reduction("fadd", 0.0)
"""The sum over lanes."""
least = _reduction("fmin")
"""The smallest lane."""


@intrinsic
def exp2(context: Any, value: Any) -> Any:
    """2^x for x <= 0 with a relative error of about 2e-7; what would be below 2^-126 comes out as about that."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR]), f"llvm.maxnum.v{LANES}f32"
        )
        x = builder.call(function, [arguments[0], _constant(-126.0)], fastmath=_FAST)
        # Truncation towards zero of x - 1/2 rounds a negative x to the nearest whole number.
        whole = builder.fptosi(builder.fsub(x, _constant(0.5), flags=_FAST), _BITS)
        part = builder.fsub(x, builder.sitofp(whole, _VECTOR), flags=_FAST)
        power = _constant(_COEFFICIENTS[-1])
        for coefficient in _COEFFICIENTS[-2::-1]:
            power = builder.fadd(builder.fmul(power, part, flags=_FAST), _constant(coefficient), flags=_FAST)
        exponent = builder.shl(whole, ir.Constant(_BITS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, _BITS), exponent), _VECTOR)

    return lanes_type(lanes_type), build


def _operation(python: Any, instruction: str) -> None:
    @type_callable(python)
    def kind(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return lanes_type if isinstance(a, _Lanes) and isinstance(b, _Lanes) else None

        return typer

    @lower_builtin(python, _Lanes, _Lanes)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments, flags=_FAST)


_operation(operator.add, "fadd")
_operation(operator.sub, "fsub")
_operation(operator.mul, "fmul")


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _make_suffix_sums(ring: Any, size: int) -> None:
    """Rows 1 … size - 1 of the ring become the sums of themselves and all later ones."""
    suffix = load(ring, size - 1)
    for k in range(size - 2, 0, -1):
        suffix = suffix + load(ring, k)
        store(ring, k, suffix)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _column_sums(
    query: Any, scale: Any, images: Any, rows: Any, v: int, w: int, radius: int, ring: Any, sums: Any, first: int
) -> None:
    """Box sums down one column: `sums[first + k] = Σ (query - scale image)²` over table rows k … k + 2 radius.

    Column v of the query stands against column w of the training images. A window's sum is a suffix sum of one
    block of P rows plus a prefix sum of the next (van Herk), so nothing is ever subtracted.
    """
    channels, height, width = query.shape
    size = 2 * radius + 1
    signal = splat(scale)
    slot = 0
    prefix = splat(np.float32(0.0))
    for a in range(rows.shape[1]):
        if slot == size:  # what lies in the ring becomes suffix sums, for the windows that end in the next block
            slot = 0
            _make_suffix_sums(ring, size)
            prefix = splat(np.float32(0.0))
        y, z = rows[0, a], rows[1, a]
        square = splat(np.float32(0.0))
        if y >= 0:
            for channel in range(channels):
                patch = signal * load(images, (channel * height + z) * width + w)
                difference = splat(query[channel, y, v]) - patch
                square = square + difference * difference
        prefix = prefix + square
        if a >= 2 * radius:
            whole = prefix
            if slot + 1 < size:
                whole = prefix + load(ring, slot + 1)
            store(sums, first + a - 2 * radius, whole)
        store(ring, slot, square)
        slot += 1


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _add_row(
    sums: Any,
    first: int,
    stride: int,
    images: Any,
    mask: Any,
    i: int,
    p: int,
    columns: Any,
    radius: int,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
    ring: Any,
) -> None:
    """Adds the candidates in row p to the running softmax of the pixels in row i.

    The column sums of column c of the table are row `first + c stride` of `sums`.
    """
    channels, height, width = weighted.shape
    size = 2 * radius + 1
    present = load(mask, 0)
    slot = 0
    prefix = splat(np.float32(0.0))
    for c in range(columns.shape[1]):
        if slot == size:
            slot = 0
            _make_suffix_sums(ring, size)
            prefix = splat(np.float32(0.0))
        column = load(sums, first + c * stride)
        prefix = prefix + column
        if c >= 2 * radius:
            distance = prefix
            if slot + 1 < size:
                distance = prefix + load(ring, slot + 1)
            nearest = least(distance)
            j, q = columns[0, c - radius], columns[1, c - radius]
            if (nearest - best[i, j]) * sharpness <= cutoff:
                if nearest < best[i, j]:
                    scale = 2.0 ** (np.float64(nearest - best[i, j]) * sharpness)
                    weight[i, j] *= scale
                    for channel in range(channels):
                        weighted[channel, i, j] *= scale
                    best[i, j] = nearest
                weights = exp2((splat(best[i, j]) - distance) * splat(sharpness)) * present
                weight[i, j] += total(weights)
                for channel in range(channels):
                    value = load(images, (channel * height + p) * width + q)
                    weighted[channel, i, j] += total(weights * value)
        store(ring, slot, column)
        slot += 1


@numba.njit(nogil=True, error_model="numpy", cache=True)
def add_block(
    queries: Any,
    signal: Any,
    images: Any,
    mask: Any,
    rows: Any,
    row_lengths: Any,
    columns: Any,
    column_lengths: Any,
    radius: int,
    sharpness: Any,
    cutoff: Any,
    best: Any,
    weight: Any,
    weighted: Any,
) -> None:
    """Adds a block of training images (channel, height, width, LANES) for every query and displacement.

    `signal` is sqrt(alpha_bar) per query; `mask` is 1 where a lane holds a candidate and 0 where it repeats one.
    A table of rows says, for one displacement, which rows of query and training images are compared with each
    other, or -1 where both are beyond the border; all but its first and last `radius` positions are outputs.
    Columns alike.
    """
    ring = np.empty((2 * radius + 1, LANES), np.float32)
    stride = rows.shape[2]
    sums = np.empty((columns.shape[2] * stride, LANES), np.float32)
    for n in range(len(queries)):
        for k in range(len(rows)):
            down = rows[k, :, : row_lengths[k]]
            for m in range(len(columns)):
                along = columns[m, :, : column_lengths[m]]
                for c in range(along.shape[1]):
                    v, w = along[0, c], along[1, c]
                    if v < 0:
                        sums[c * stride : (c + 1) * stride] = 0.0
                    else:
                        _column_sums(queries[n], signal[n], images, down, v, w, radius, ring, sums, c * stride)
                for a in range(radius, down.shape[1] - radius):
                    _add_row(
                        sums,
                        a - radius,
                        stride,
                        images,
                        mask,
                        down[0, a],
                        down[1, a],
                        along,
                        radius,
                        sharpness[n],
                        cutoff,
                        best[n],
                        weight[n],
                        weighted[n],
                        ring,
                    )
