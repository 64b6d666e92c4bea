"""Sums of weighted rows, which most of a step is made of: they stay in registers until they are complete.

From loops a compiler makes code that writes the sum after every few rows, and asks before each of them whether the rows
overlap with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

# Of one vector; and how many vectors of a sum are held at once.
_BYTES, _VECTORS = 32, 8
_FLAGS = ("contract", "reassoc", "nsz")
_POSITION, _LANE = ir.IntType(64), ir.IntType(32)


@intrinsic
def _add_rows(_typing_context: Any, out: Any, rows: Any, chosen: Any, weights: Any) -> Any:
    """Add ``weights @ rows[chosen]`` to `out`, one value per column of `rows`, whose rows are contiguous."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(kinds, values, strict=True)]
        target, matrix, places, factors = arrays
        n, width = (builder.extract_value(array.shape, 0) for array in (places, target))

        def weighted(i: Any) -> tuple[Any, Any]:
            """A chosen row and its weight."""
            place, factor = (builder.load(_at(builder, array, i)) for array in (places, factors))
            return _at(builder, matrix, builder.sext(place, _POSITION)), factor

        start = ir.Constant(_POSITION, 0)
        lanes = _BYTES * 8 // out.dtype.bitwidth
        for n_vectors, n_lanes in ((_VECTORS, lanes), (1, lanes), (1, 1)):
            step = ir.Constant(_POSITION, n_vectors * n_lanes)
            end = builder.sub(width, builder.srem(builder.sub(width, start), step))
            with cgutils.for_range_slice(builder, start, end, step, _POSITION) as (column, _):
                _add_columns(builder, target.data, column, n_vectors, n_lanes, n, weighted)
            start = end
        return context.get_dummy_value()

    return types.void(out, rows, chosen, weights), code


# In Python it takes no context.
add_rows: Any = _add_rows


def _add_columns(
    builder: Any,
    out: Any,
    column: Any,
    n_vectors: int,
    n_lanes: int,
    n: Any,
    weighted: Callable[[Any], tuple[Any, Any]],
) -> None:
    """Add the columns of `n` rows that begin with one of them."""
    number = out.type.pointee
    vector, align = ir.VectorType(number, n_lanes), 4 if number == ir.FloatType() else 8

    def vectors(row: Any) -> list[Any]:
        first = builder.bitcast(builder.gep(row, [column]), vector.as_pointer())
        return [builder.gep(first, [ir.Constant(_POSITION, i)]) for i in range(n_vectors)]

    ends = vectors(out)
    sums = [cgutils.alloca_once_value(builder, builder.load(end, align=align)) for end in ends]
    with cgutils.for_range(builder, n) as loop:
        row, factor = weighted(loop.index)
        nothing, first = ir.Constant(vector, ir.Undefined), ir.Constant(_LANE, 0)
        alone = builder.insert_element(nothing, factor, first)
        everywhere = builder.shuffle_vector(alone, nothing, ir.Constant(ir.VectorType(_LANE, n_lanes), [0] * n_lanes))
        for total, part in zip(sums, vectors(row), strict=True):
            product = builder.fmul(everywhere, builder.load(part, align=align), flags=_FLAGS)
            builder.store(builder.fadd(builder.load(total), product, flags=_FLAGS), total)
    for total, end in zip(sums, ends, strict=True):
        builder.store(builder.load(total), end, align=align)


def _at(builder: Any, array: Any, i: Any) -> Any:
    """Pointer to an element, or a row, of an array."""
    step = builder.extract_value(array.strides, 0)
    address = builder.add(builder.ptrtoint(array.data, _POSITION), builder.mul(i, step))
    return builder.inttoptr(address, array.data.type)
