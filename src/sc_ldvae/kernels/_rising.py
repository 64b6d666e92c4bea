"""log(Gamma(x + theta) / Gamma(theta)) of counts x and its slope, by recurrence, and by Stirling's series far up."""

from __future__ import annotations

import math

import numpy as np

from sc_ldvae.kernels._jit import kernel, log, part_of_kernel

# Terms taken one by one: beyond them Stirling's series, as far as it is kept, is exact to 1e-11.
_N_TERMS = 16
# Counts and inverse dispersions from here on: no integer is made of them, and no product of _N_TERMS of them.
_LARGE = 2.0**60
# Larger counts are so rare that a table costs more than it saves.
N_TABULATED = 8


@part_of_kernel
def log_rising(x, theta):
    """log(Gamma(x + theta) / Gamma(theta)) and theta times its derivative, for an integer x > 0."""
    if theta < _LARGE and x < _LARGE:
        return _ordinary(x, theta)
    # `float` would leave single precision as it is.
    return _far_up(np.float64(x), np.float64(theta))


@part_of_kernel
def _ordinary(x, theta):
    """`log_rising` by the recurrence, and from _N_TERMS on by Stirling's series."""
    theta = float(theta)
    n = min(int(x), _N_TERMS)
    product, slope = theta, 1.0
    for i in range(1, n):
        product *= theta + i
        slope += theta / (theta + i)
    value = math.log(product)
    if x > n:
        low, high = theta + n, theta + x
        growth = math.log1p((x - n) / low)
        value += (high - 0.5) * growth + (x - n) * (math.log(low) - 1.0) + _rest(high) - _rest(low)
        slope += theta * (growth + _rest_slope(high) - _rest_slope(low))
    return value, slope


@part_of_kernel
def _far_up(x, theta):
    """`log_rising` by the leading terms of Stirling's series, beside which nothing counts."""
    low, others = theta + 1, x - 1
    value = math.log(theta) + (low + others - 0.5) * math.log1p(others / low) + others * (math.log(low) - 1)
    return value, 1 + theta * math.log1p(others / (theta + 0.5))


@kernel
def tabulate_rising(theta, log_theta, values, slopes):
    """`log_rising` of the counts 1 to N_TABULATED at every theta; both tables are rows x counts x genes."""
    for row in range(len(theta)):
        t, value, slope = theta[row], values[row], slopes[row]
        for g in range(len(t)):
            value[0, g] = log_theta[row, g]
            slope[0, g] = 1
        for i in range(1, N_TABULATED):
            add_term(t, t.dtype.type(i), value[i - 1], slope[i - 1], value[i], slope[i])


@part_of_kernel
def add_term(theta, i, value, slope, next_value, next_slope):
    """One step of the recurrence, to one count more."""
    for g in range(len(theta)):
        term = theta[g] + i
        next_value[g] = value[g] + log(term)
        next_slope[g] = slope[g] + theta[g] / term


@part_of_kernel
def _rest(a):
    """What Stirling's formula leaves out of log Gamma(a) (Abramowitz and Stegun 6.1.41)."""
    square = 1 / (a * a)
    return (1 / 12 - square * (1 / 360 - square / 1260)) / a


@part_of_kernel
def _rest_slope(a):
    """The derivative of what it leaves out, with that of the half log (Abramowitz and Stegun 6.3.18)."""
    square = 1 / (a * a)
    return -0.5 / a - square * (1 / 12 - square * (1 / 120 - square / 252))


def empty_tables(theta):
    """Room for `tabulate_rising`."""
    shape = (len(theta), N_TABULATED, theta.shape[1])
    return np.empty(shape, theta.dtype), np.empty(shape, theta.dtype)
