"""Derivatives of the negative binomial's log-likelihood, for genes that are regressed one by one.

With mean m = exp(eta), inverse dispersion theta and ``rest = theta / (theta + m)``, a count x has

    d log p / d eta         = (x - m) rest
    - d^2 log p / d eta^2   = m rest^2 + x (m / theta) rest^2
    d log p / d theta       = psi(x + theta) - psi(theta) - log(1 + m / theta) - (x - m) / (theta + m)
    d^2 log p / d theta^2   = psi'(x + theta) - psi'(theta) + (m / (theta + m))^2 / theta + x / (theta + m)^2

What is said of zeros is computed for all cells in vector instructions, then corrected at the nonzeros.
"""

from __future__ import annotations

import math

from sc_ldvae.kernels._jit import exp, kernel, log1p, part_of_kernel

# Terms of psi(x + theta) - psi(theta) taken one by one: beyond them its asymptotic series is exact to 1e-6.
_N_TERMS = 16


@kernel
def dispersed_derivatives(indptr, cells, counts, eta, theta, slope, information, of_theta):
    """Fill derivatives for genes x cells.

    Parameters
    ----------
    indptr, cells, counts
        Nonzeros by gene.
    eta
        Log means, n_genes x n_cells.
    theta
        n_genes.
    slope, information
        By eta: the first derivative and minus the second, n_genes x n_cells; filled.
    of_theta
        By theta: first and second derivative, summed over cells, n_genes x 2; filled.
    """
    for g in range(len(eta)):
        inverse = 1 / theta[g]
        first, second = _zeros(eta[g], eta.dtype.type(inverse), slope[g], information[g])
        for i in range(indptr[g], indptr[g + 1]):
            cell, x = cells[i], counts[i]
            ratio = exp(eta[g, cell]) * inverse
            rest = 1 / (1 + ratio)
            slope[g, cell] += x * rest
            information[g, cell] += x * ratio * rest * rest
            rise, bend = _rising(x, theta[g])
            first += rise - x * rest * inverse
            second += bend + x * (rest * inverse) ** 2
        of_theta[g, 0] = first
        of_theta[g, 1] = second


@part_of_kernel
def _zeros(eta, inverse, slope, information):
    """Of counts that are all zero; returns the sums of what is by theta."""
    one = eta.dtype.type(1)
    first, second = eta.dtype.type(0), eta.dtype.type(0)
    for i in range(len(eta)):
        mean = exp(eta[i])
        ratio = mean * inverse
        rest = one / (one + ratio)
        slope[i] = -mean * rest
        information[i] = mean * rest * rest
        first += ratio * rest - log1p(ratio)
        second += ratio * rest * ratio * rest
    return float(first), float(second * inverse)


@part_of_kernel
def _rising(x, theta):
    """psi(x + theta) - psi(theta) and its derivative, for an integer x > 0 (Abramowitz and Stegun 6.3.18, 6.4.12)."""
    n = int(min(x, _N_TERMS))
    first, second = 0.0, 0.0
    for i in range(n):
        term = 1 / (theta + i)
        first += term
        second -= term * term
    if x > n:
        low, high = 1 / (theta + n), 1 / (theta + x)
        first += math.log(low / high) - (high - low) / 2 - (high**2 - low**2) / 12
        second += high - low + (high**2 - low**2) / 2 + (high**3 - low**3) / 6
    return first, second
