"""Vectors of float32 lanes as a type of compiled code.

Loops over a few dozen numbers spend more time on checking that arrays do not overlap than on arithmetic, and the
compiler unrolls the short ones into scalars. Here one value holds the same number of `LANES` training images, and
its operators are single vector instructions on whatever width the processor has.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 64
"""Training images side by side."""

PART = 16
"""Running sums side by side: those of the lanes that are as many apart."""

_FAST = ("nnan", "ninf", "nsz", "contract", "reassoc", "arcp")

COEFFICIENTS = (
    np.polynomial.Chebyshev.interpolate(lambda x: 2.0**x, 5, domain=[-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef
)
"""Of 2^x on [-1/2, 1/2], to float32's rounding, from the lowest power."""


class Lanes(types.Type):
    """So many float32 numbers in vector registers."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Lanes{count}")
        self.count = count
        self.vector = ir.VectorType(ir.FloatType(), count)
        self.bits = ir.VectorType(ir.IntType(32), count)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [float(np.float32(value))] * self.count)

    def splat(self, builder: Any, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(self.bits, [0] * self.count))


whole, part = Lanes(LANES), Lanes(PART)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_end_type: Any) -> None:
        super().__init__(manager, front_end_type, front_end_type.vector)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any, lanes: Lanes) -> Any:
    """Where a row of so many numbers of a C-contiguous array begins."""
    data = context.make_array(array_type)(context, builder, value=array).data
    start = builder.mul(row, ir.Constant(row.type, lanes.count))
    return builder.bitcast(builder.gep(data, [start]), lanes.vector.as_pointer())


def _loading(lanes: Lanes) -> Any:
    @intrinsic
    def load(context: Any, array: Any, row: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load(_pointer(context, builder, signature.args[0], *arguments, lanes), align=4)

        return lanes(array, types.intp), build

    return load


load = _loading(whole)
"""Row `row` of a C-contiguous float32 array whose last dimension is LANES, counted over all dimensions."""
load_part = _loading(part)
"""The same for a last dimension of PART."""


@intrinsic
def store(context: Any, array: Any, row: Any, value: Any) -> Any:
    """Writes a row, counted as by `load` or `load_part`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, position, vector = arguments
        builder.store(vector, _pointer(context, builder, signature.args[0], target, position, value), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


def _splatting(lanes: Lanes) -> Any:
    @intrinsic
    def splat(context: Any, scalar: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return lanes.splat(builder, arguments[0])

        return lanes(types.float32), build

    return splat


splat = _splatting(whole)
"""All lanes the same."""
splat_part = _splatting(part)
"""The same for a part."""


@intrinsic
def fused(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, merged with no other operation: the same numbers wherever it is compiled."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(whole.vector, [whole.vector] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return builder.call(function, arguments)

    return whole(whole, whole, whole), build


def _folding(combine: Any) -> Any:
    @intrinsic
    def fold(context: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (vector,) = arguments
            index = ir.VectorType(ir.IntType(32), PART)
            parts = [
                builder.shuffle_vector(vector, vector, ir.Constant(index, list(range(start, start + PART))))
                for start in range(0, LANES, PART)
            ]
            while len(parts) > 1:
                parts = [combine(builder, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
            return parts[0]

        return part(value), build

    return fold


def _minimum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b, flags=_FAST), a, b)


fold_sum = _folding(lambda builder, a, b: builder.fadd(a, b, flags=_FAST))
"""The sums of the lanes that are PART apart."""
fold_least = _folding(_minimum)
"""The smallest of the lanes that are PART apart."""


def _reduction(name: str, *start: float) -> Any:
    @intrinsic
    def reduce(context: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scalars = [ir.Constant(ir.FloatType(), number) for number in start]
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * len(start) + [part.vector])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v{PART}f32")
            return builder.call(function, [*scalars, *arguments], fastmath=_FAST)

        return types.float32(value), build

    return reduce


total = _reduction("fadd", 0.0)
"""The sum over the lanes of a part."""
least = _reduction("fmin")
"""The smallest lane of a part."""


def _comparing(relation: str) -> Any:
    @intrinsic
    def compare(context: Any, value: Any, limit: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            found = builder.fcmp_ordered(relation, arguments[0], part.splat(builder, arguments[1]), flags=_FAST)
            mask = builder.bitcast(found, ir.IntType(PART))
            return builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(PART), 0))

        return types.boolean(value, types.float32), build

    return compare


any_below = _comparing("<")
"""Whether a lane of a part is below a number."""
any_within = _comparing("<=")
"""Whether a lane of a part is at most a number."""


@intrinsic
def spread_part(context: Any, array: Any, position: Any) -> Any:
    """A part of which every lane is the number at a position of a C-contiguous float32 array."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        return part.splat(builder, builder.load(builder.gep(data, [arguments[1]])))

    return part(array, types.intp), build


@intrinsic
def greater_part(context: Any, a: Any, b: Any) -> Any:
    """Of each lane of two parts the greater."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b, flags=_FAST), a, b)

    return part(part, part), build


def _raising(lanes: Lanes) -> Any:
    @intrinsic
    def exp2(context: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lowest = lanes.constant(-126.0)
            x = builder.select(builder.fcmp_ordered(">", arguments[0], lowest, flags=_FAST), arguments[0], lowest)
            # Adding 1.5 · 2^23 rounds to a whole number and leaves it in the lowest bits. Not to be simplified away: no
            # flags.
            magic = lanes.constant(1.5 * 2**23)
            shifted = builder.fadd(x, magic)
            rest = builder.fsub(x, builder.fsub(shifted, magic), flags=("contract",))
            power = lanes.constant(COEFFICIENTS[-1])
            for coefficient in COEFFICIENTS[-2::-1]:
                power = builder.fadd(builder.fmul(power, rest, flags=_FAST), lanes.constant(coefficient), flags=_FAST)
            bits = builder.bitcast(shifted, lanes.bits)
            exponent = builder.shl(bits, ir.Constant(lanes.bits, [23] * lanes.count))
            return builder.bitcast(builder.add(builder.bitcast(power, lanes.bits), exponent), lanes.vector)

        return lanes(value), build

    return exp2


exp2 = _raising(whole)
"""2^x for x <= 0 with a relative error of about 2e-7; what would be below 2^-126 comes out as about that."""
exp2_part = _raising(part)
"""The same for a part."""


def _operation(python: Any, instruction: str) -> None:
    @type_callable(python)
    def kind(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return a if isinstance(a, Lanes) and a == b else None

        return typer

    @lower_builtin(python, Lanes, Lanes)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments, flags=_FAST)


_operation(operator.add, "fadd")
_operation(operator.sub, "fsub")
_operation(operator.mul, "fmul")
