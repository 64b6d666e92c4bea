"""The sum that most of a step is made of, of weighted rows, with the result in registers until it is complete.

A compiler that is given the loops writes the result after every few rows, and asks before each of them whether the rows
overlap with it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Of one vector, and of how many vectors the result is held at once: what processors have eight registers for, and more.
_BYTES, _VECTORS = 32, 8
_FLAGS = ("contract", "reassoc", "nsz")


@intrinsic
def _add_rows(_typing_context: Any, out: Any, rows: Any, chosen: Any, weights: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, values, strict=True)]
        target, matrix, places, factors = arrays
        number, index = context.get_value_type(out.dtype), ir.IntType(64)
        lanes = _BYTES * 8 // out.dtype.bitwidth
        width, n = (builder.extract_value(array.shape, 0) for array in (target, places))
        stride = builder.extract_value(matrix.strides, 0)
        base = builder.ptrtoint(matrix.data, index)

        def element(array: Any, kind: Any, i: Any) -> Any:
            step = builder.extract_value(array.strides, 0)
            address = builder.add(builder.ptrtoint(array.data, index), builder.mul(i, step))
            return builder.load(builder.inttoptr(address, context.get_data_type(kind.dtype).as_pointer()))

        def columns(first: Any, n_vectors: int, n_lanes: int) -> None:
            """The sum of some columns, of which the first is given."""
            vector = ir.VectorType(number, n_lanes)
            at = builder.bitcast(builder.gep(target.data, [first]), vector.as_pointer())
            ends = [builder.gep(at, [ir.Constant(index, i)]) for i in range(n_vectors)]
            sums = [cgutils.alloca_once(builder, vector) for _ in ends]
            for total, end in zip(sums, ends, strict=True):
                builder.store(builder.load(end, align=number_bytes), total)
            with cgutils.for_range(builder, n) as loop:
                place = builder.sext(element(places, chosen, loop.index), index)
                address = builder.add(base, builder.mul(place, stride))
                row = builder.gep(builder.inttoptr(address, number.as_pointer()), [first])
                row = builder.bitcast(row, vector.as_pointer())
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), element(factors, weights, loop.index), ir.Constant(ir.IntType(32), 0))
                every = ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), [0] * n_lanes)
                factor = builder.shuffle_vector(one, one, every)
                for i, total in enumerate(sums):
                    values = builder.load(builder.gep(row, [ir.Constant(index, i)]), align=number_bytes)
                    product = builder.fmul(factor, values, flags=_FLAGS)
                    builder.store(builder.fadd(builder.load(total), product, flags=_FLAGS), total)
            for total, end in zip(sums, ends, strict=True):
                builder.store(builder.load(total), end, align=number_bytes)

        number_bytes = out.dtype.bitwidth // 8
        done = ir.Constant(index, 0)
        for n_vectors, n_lanes in ((_VECTORS, lanes), (1, lanes), (1, 1)):
            size = ir.Constant(index, n_vectors * n_lanes)
            until = builder.sub(width, builder.srem(builder.sub(width, done), size))
            with cgutils.for_range_slice(builder, done, until, size, index) as (first, _):
                columns(first, n_vectors, n_lanes)
            done = until
        return context.get_dummy_value()

    return types.void(out, rows, chosen, weights), code


# In Python it takes no context.
add_rows: Any = _add_rows
