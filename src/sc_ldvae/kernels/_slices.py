"""Slices of a kernel's work, called by address: by several threads, or one after the other.

What runs the slices of all kernels is compiled once, and knows of a slice no more than where it is. So the machine code
of a kernel is there once, and adds up in one order, whoever calls it. A loop of each kernel's own over its slices would
hold that code three times, and be optimised as often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from sc_ldvae.kernels._jit import on_threads

_ADDRESS = ir.IntType(64)
# Of what is called for each slice: its number, and where its other arguments are.
_ARGUMENTS = types.int64, types.int64


@intrinsic
def _bound(typing_context: Any, function: Any, arguments: Any) -> Any:
    """Addresses of a function of a slice's number and an address, and of a tuple of `arguments` that is to be there.

    It calls `function` with the number and the arguments. The tuple lives as long as the call in which this is asked.
    """
    called = function.get_call_type(typing_context, (types.int64, *arguments.types), {})

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        compiled = function.dispatcher.overloads[called.args]
        context.add_linking_libs((compiled.library,))
        memory = cgutils.alloca_once_value(builder, values[1])

        convention, module = context.call_conv, builder.module
        outer_type = convention.get_function_type(types.none, _ARGUMENTS)
        outer = ir.Function(module, outer_type, module.get_unique_name("slice"))
        outer.linkage = "internal"
        inside = ir.IRBuilder(outer.append_basic_block())
        which, data = convention.get_arguments(outer)
        others = cgutils.unpack_tuple(inside, inside.load(inside.inttoptr(data, memory.type)))
        status, _ = context.call_internal_no_propagate(inside, compiled.fndesc, called, [which, *others])
        _pass_on(context, inside, status)
        convention.return_value(inside, context.get_dummy_value())

        addresses = [builder.ptrtoint(pointer, _ADDRESS) for pointer in (outer, memory)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return types.UniTuple(types.int64, 2)(function, arguments), code


# In Python it takes no context.
bound: Any = _bound


@intrinsic
def _call(_typing_context: Any, _function: Any, _which: Any, _data: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        address, *arguments = values
        convention = context.call_conv
        kind = convention.get_function_type(types.none, _ARGUMENTS)
        function = builder.inttoptr(address, kind.as_pointer())
        status, _ = convention.call_function(builder, function, types.none, _ARGUMENTS, arguments)
        _pass_on(context, builder, status)
        return context.get_dummy_value()

    return types.none(types.int64, *_ARGUMENTS), code


call: Any = _call


@on_threads
def run_slices(serial, n_slices, function, data):
    """Call the function at an address with the number of each slice and the address `data`."""
    if serial:
        for which in range(n_slices):
            call(function, which, data)
    else:
        # `prange` counts in another type.
        for which in prange(n_slices):
            call(function, np.int64(which), data)


def _pass_on(context: Any, builder: Any, status: Any) -> None:
    """What was raised, as where there is no memory left."""
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)
