"""How every kernel is compiled, and an exp and a log that compile to vector instructions."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from sc_ldvae.kernels._cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")

# Sums may be taken in any order, and no value is expected to be infinite or NaN: a fit that diverges shows it in the
# divergences from the priors, which NumPy computes.
OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp", "nnan", "ninf"}}
_WITHOUT_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Nothing else is turned into parallel loops.
_NOT_PARALLEL = ("comprehension", "fusion", "inplace_binop", "numpy", "reduction", "setitem", "stencil")
_PRANGE_ALONE: Any = {"prange": True, **dict.fromkeys(_NOT_PARALLEL, False)}


def kernel(function: _Function) -> _Function:
    """Compile at the first call, keep the machine code on disk, run without the interpreter's lock."""
    return _kept_on_disk(function, function, nogil=True)


def kernel_of_all_numbers(function: _Function) -> _Function:
    """`kernel` for a function that infinite values and NaN go through: what shows that a fit diverges."""
    return _kept_on_disk(function, function, nogil=True, fastmath=False)


def part_of_kernel(function: _Function) -> _Function:
    """Compile a function that only kernels call: not wrapped for Python, but kept on disk, for kernels share it."""
    return _kept_on_disk(function, function, forceinline=True, **_WITHOUT_WRAPPERS)


def part_of_parallel_kernel(function: _Function) -> _Function:
    """Compile the function of a slice, which is called and not inlined, and is kept with the kernel that calls it."""
    compiled: _Function = njit(**OPTIONS, **_WITHOUT_WRAPPERS)(function)
    return compiled


def on_threads(function: _Function) -> _Function:
    """`kernel` for a function whose `prange` runs on the threads of numba."""
    return _kept_on_disk(function, function, nogil=True, parallel=_PRANGE_ALONE)


def kernel_kept_as(name: Callable[..., Any], function: _Function) -> _Function:
    """`kernel` for a function that is kept on disk under the name, and with the code, of another."""
    return _kept_on_disk(name, function, nogil=True)


def _kept_on_disk(name: Callable[..., Any], function: _Function, **options: Any) -> _Function:
    compiled: Any = njit(**{**OPTIONS, **options})(function)
    # RuntimeError: there is no file of the code, and so no place for its machine code.
    with suppress(RuntimeError, OSError):
        # Where numba itself keeps its own (`Dispatcher.enable_caching`).
        compiled._cache = Cache(name)  # noqa: SLF001
    result: _Function = compiled
    return result


def exp(x: float) -> float:
    """Exponential for kernels: of float32 to 3e-7 relative, constant below -87 and above 88; float64: libm."""
    raise NotImplementedError


def log(x: float) -> float:
    """Natural log of a positive normal number, for use in kernels: of float32 to 1e-7, of float64 the library's."""
    raise NotImplementedError


def log1p(x: float) -> float:
    """log(1 + x) for x >= 0, for use in kernels; small x keeps its digits."""
    raise NotImplementedError


_I32, _F32 = ir.IntType(32), ir.FloatType()
# 1.5 * 2**23: a float32 near it has its integer part in its lowest bits.
_SHIFT, _SHIFT_BITS = np.float32(12582912.0), 0x4B400000
_SQRT_HALF_BITS, _EXPONENT_AT, _ONE_BITS = 0x3F3504F3, 23, 0x3F800000
_LOG2_E = np.float32(1.4426950408889634)
# log(2) in two parts, the first with trailing zeros, so that small multiples of it are exact.
_LOG_2_HIGH, _LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST, _HIGHEST = np.float32(-87.3), np.float32(88.0)
_ONE, _HALF = np.float32(1), np.float32(0.5)


def _single(*numbers: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(number) for number in numbers)


# The polynomials of Cephes' expf and logf (Moshier), lowest power first.
_E0, _E1, _E2, _E3 = _single(0.5, 0.16666665459, 0.041665795894, 8.3334519073e-3)
_E4, _E5 = _single(1.3981999507e-3, 1.98756915e-4)
_L0, _L1, _L2, _L3, _L4 = _single(0.33333331174, -0.24999993993, 0.20000714765, -0.16668057665, 0.14249322787)
_L5, _L6, _L7, _L8 = _single(-0.12420140846, 0.1167699874, -0.1151461031, 0.070376836292)


def _of_bits(build: Callable[[Any, Any], Any]) -> Any:
    """A function of a float32 made of integer operations on its bits."""

    @intrinsic
    def function(_typing_context: Any, _x: Any) -> Any:
        def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return build(builder, builder.bitcast(arguments[0], _I32))

        return types.float32(types.float32), code

    return function


def _int(value: int) -> Any:
    return ir.Constant(_I32, value)


@_of_bits
def _shifted_integer(builder: Any, bits: Any) -> Any:
    """The n of n + _SHIFT."""
    return builder.sitofp(builder.sub(bits, _int(_SHIFT_BITS)), _F32)


@_of_bits
def _two_to_shifted(builder: Any, bits: Any) -> Any:
    """2 ** n of n + _SHIFT."""
    return builder.bitcast(builder.add(builder.shl(bits, _int(_EXPONENT_AT)), _int(_ONE_BITS)), _F32)


@_of_bits
def _exponent(builder: Any, bits: Any) -> Any:
    """The e of m * 2 ** e with m from sqrt(1/2) to sqrt(2)."""
    return builder.sitofp(builder.ashr(builder.sub(bits, _int(_SQRT_HALF_BITS)), _int(_EXPONENT_AT)), _F32)


@_of_bits
def _mantissa(builder: Any, bits: Any) -> Any:
    """The m of m * 2 ** e with m from sqrt(1/2) to sqrt(2)."""
    exponent = builder.and_(builder.sub(bits, _int(_SQRT_HALF_BITS)), _int(-(1 << _EXPONENT_AT)))
    return builder.bitcast(builder.sub(bits, exponent), _F32)


@part_of_kernel
def _exp_single(x):
    x = min(max(x, _LOWEST), _HIGHEST)
    shifted = x * _LOG2_E + _SHIFT
    n = _shifted_integer(shifted)
    r = x - n * _LOG_2_HIGH - n * _LOG_2_LOW
    p = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    return (p * r * r + r + _ONE) * _two_to_shifted(shifted)


@part_of_kernel
def _log_from(e, r):
    """log((1 + r) * 2 ** e)."""
    p = (((((((_L8 * r + _L7) * r + _L6) * r + _L5) * r + _L4) * r + _L3) * r + _L2) * r + _L1) * r + _L0
    square = r * r
    return p * r * square + e * _LOG_2_LOW - _HALF * square + r + e * _LOG_2_HIGH


@overload(exp, jit_options=OPTIONS)
def _exp_of(x):
    # Functions in Python, for numba compiles them.
    return (lambda x: _exp_single(x)) if x == types.float32 else (lambda x: math.exp(x))  # noqa: PLW0108


@overload(log, jit_options=OPTIONS)
def _log_of(x):
    return (lambda x: _log_from(_exponent(x), _mantissa(x) - _ONE)) if x == types.float32 else (lambda x: math.log(x))  # noqa: PLW0108


@overload(log1p, jit_options=OPTIONS)
def _log1p_of(x):
    if x != types.float32:
        return lambda x: math.log1p(x)  # noqa: PLW0108

    def single(x):
        y = _ONE + x
        e = _exponent(y)
        # Without an exponent to take out, x itself has the digits that 1 + x has lost.
        return _log_from(e, x if e == 0 else _mantissa(y) - _ONE)

    return single
