"""From the first linear map to expression, and back: through a softmax, or an exponential where there is no library."""

from __future__ import annotations

from typing import Any, TypeVar

from numba.extending import overload

from sc_ldvae.kernels._jit import OPTIONS, exp
from sc_ldvae.kernels._softmax import softmax, through_softmax
from sc_ldvae.kernels._sums import scale

_Terms = TypeVar("_Terms", bound=type)

_INLINED: Any = {"forceinline": True, **OPTIONS}
_WITHOUT_SOFTMAX: set[type] = set()
# Squares and quotients of its exponential are numbers in single precision.
_LARGEST_LOG = 60


def without_softmax(terms: _Terms) -> _Terms:
    """Mark the terms of a likelihood without library: the first map's output is the log expression itself."""
    _WITHOUT_SOFTMAX.add(terms)
    return terms


def express(terms, eta, chosen, proportions, log_proportions):
    """Fill what `row_loss` takes: proportions and their logs at the `chosen` genes; or expression, and no logs."""
    raise NotImplementedError


def through_link(terms, d_mean, proportions, factor):
    """Turn the gradient by log expression into `factor` times that by `eta`; return that by the log library."""
    raise NotImplementedError


@overload(express, jit_options=_INLINED)
def _express(terms, eta, chosen, proportions, log_proportions):
    return _exponential if terms.instance_class in _WITHOUT_SOFTMAX else _softmax


@overload(through_link, jit_options=_INLINED)
def _through_link(terms, d_mean, proportions, factor):
    return _through_exponential if terms.instance_class in _WITHOUT_SOFTMAX else _through_softmax


def _softmax(terms, eta, chosen, proportions, log_proportions):
    softmax(eta, chosen, proportions, log_proportions)


def _through_softmax(terms, d_mean, proportions, factor):
    return through_softmax(d_mean, proportions, factor)


def _exponential(terms, eta, chosen, proportions, log_proportions):
    largest = eta.dtype.type(_LARGEST_LOG)
    for g in range(len(eta)):
        proportions[g] = exp(min(eta[g], largest))


def _through_exponential(terms, d_mean, proportions, factor):
    # Also beyond the largest: what is too large is to come back.
    scale(d_mean, factor)
    return d_mean.dtype.type(0)
