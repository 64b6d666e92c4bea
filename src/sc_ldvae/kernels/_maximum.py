"""The largest of many numbers, in vector instructions."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from sc_ldvae.kernels._jit import part_of_kernel

# Without them a compiler keeps the comparisons in their order, and does one after the other.
_FLAGS = "nnan", "ninf", "nsz"


@intrinsic
def _larger(_typing_context: Any, one: Any, other: Any) -> Any:
    def code(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values, flags=_FLAGS), *values, flags=_FLAGS)

    return (one(one, other), code) if one == other and isinstance(one, types.Float) else None


# In Python it takes no context.
larger: Any = _larger


@part_of_kernel
def maximum(x):
    """Largest value."""
    largest = x[0]
    for j in range(len(x)):
        largest = larger(largest, x[j])
    return largest
