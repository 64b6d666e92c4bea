"""Deviance of counts under a decoder, and under it without some of its factors.

Without factors, a gene's log expression is what is left of it plus an offset of the gene, the same in all cells: so the
sets of factors come twice, first to say what is expected of each gene, then with the offsets that follow. From set to
set a cell's log expression changes by the factors in which they differ.
"""

from __future__ import annotations

import math

import numpy as np

from sc_ldvae.kernels._bernoulli import log_odds
from sc_ldvae.kernels._jit import exp, kernel, log1p, part_of_kernel
from sc_ldvae.kernels._softmax import softmax
from sc_ldvae.kernels._sums import add_scaled, exp_of, positions, scale

# Below it, 1 - exp(-m) loses digits of which the series has all but 1e-7.
_SERIES = 0.05


@kernel
def expected_totals(library, eta, centred, loadings, without, not_inflated, has_library, thresholded, out):
    """Add each gene's expected count without each set of factors, over all cells, to `out`.

    Parameters
    ----------
    library, eta, centred, loadings, without, not_inflated, thresholded
        As in `deviances`; if `thresholded`, totals are numbers of cells with any count.
    has_library
        Whether there is a softmax. Without, what a background adds is in no total.
    out
        Changed: n_sets x genes, double precision.
    """
    n, n_genes = eta.shape
    row, mean, before = np.empty(n_genes, eta.dtype), np.empty(n_genes, eta.dtype), np.empty_like(without[0])
    for cell in range(n):
        _copy(row, eta[cell])
        before[:] = False
        for i in range(len(without)):
            _change(row, centred[cell], loadings, before, without[i])
            _fill(mean, row, has_library)
            scale(mean, library[cell])
            if not_inflated is not None:
                share = not_inflated[cell]
                for g in range(n_genes):
                    mean[g] *= share[g]
            if thresholded:
                for g in range(n_genes):
                    m = mean[g]
                    mean[g] = m - m * m * (1 / 2 - m / 6) if m < _SERIES else 1 - exp(-m)
            total = out[i]
            for g in range(n_genes):
                total[g] += mean[g]


@kernel
def deviances(
    indptr,
    genes,
    counts,
    library,
    null,
    eta,
    centred,
    loadings,
    without,
    offsets,
    theta,
    not_inflated,
    background,
    thresholded,
    out,
):
    """Fill each cell's deviance under the null, and under the decoder without each set of factors.

    Parameters
    ----------
    indptr, genes, counts
        Counts in compressed rows.
    library
        Library, n_cells.
    null, eta
        Log proportions up to a constant, genes and n_cells x genes.
    centred, loadings
        Latent from its mean, n_cells x factors, and loadings, factors x genes: what a factor adds to `eta`.
    without
        Which factors each set holds, n_sets x factors, boolean.
    offsets
        Added to `eta` without each set, n_sets x genes.
    theta
        Inverse dispersions, n_cells x genes; None for Poisson.
    not_inflated
        Share of the counts that zero inflation leaves, n_cells x genes; None without.
    background
        Added to the expression, genes, where `null` is the log mean and `eta` the log expression at library 1; None
        where there is a softmax, and no background.
    thresholded
        Whether only is seen that counts are above zero; without theta.
    out
        Filled: n_cells x (1 + n_sets), double precision.
    """
    n, n_genes = eta.shape
    row, mean, before = np.empty(n_genes, eta.dtype), np.empty(n_genes, eta.dtype), np.empty_like(without[0])
    shifted = np.empty(n_genes, eta.dtype)
    for cell in range(n):
        own = slice(indptr[cell], indptr[cell + 1])
        x_genes, x = genes[own], counts[own]
        saturated = _saturated(x_genes, x, None if theta is None else theta[cell])
        _copy(row, eta[cell])
        before[:] = False
        for i in range(out.shape[1]):
            if i == 0:
                _copy(shifted, null)
            else:
                _change(row, centred[cell], loadings, before, without[i - 1])
                offset = offsets[i - 1]
                for g in range(n_genes):
                    shifted[g] = row[g] + offset[g]
            _fill(mean, shifted, background is None)
            if i > 0 and background is not None:
                for g in range(n_genes):
                    mean[g] += background[g]
            scale(mean, library[cell])
            if i > 0 and not_inflated is not None:
                share = not_inflated[cell]
                for g in range(n_genes):
                    mean[g] *= share[g]
            if theta is not None:
                out[cell, i] = 2 * (saturated + _negative_binomial(x_genes, x, mean, theta[cell]))
            elif thresholded:
                out[cell, i] = 2 * _bernoulli(x_genes, mean)
            else:
                out[cell, i] = 2 * (saturated + _poisson(x_genes, x, mean))


@part_of_kernel
def _copy(out, x):
    for g in range(len(x)):
        out[g] = x[g]


@part_of_kernel
def _change(row, centred, loadings, before, now):
    """From the log expression without one set of factors to that without another; `before` becomes `now`."""
    for k in range(len(now)):
        if before[k] != now[k]:
            add_scaled(row, loadings[k], centred[k] if before[k] else -centred[k])
            before[k] = now[k]


@part_of_kernel
def _fill(expression, eta, has_library):
    """Of a cell whose library is 1."""
    if has_library:
        # No gene's log proportion is asked for.
        softmax(eta, positions(0), expression, eta)
    else:
        exp_of(expression, eta)


@part_of_kernel
def _saturated(genes, counts, theta):
    """What no mean is in, of half a deviance: ``x log x - x`` for Poisson, or what `_negative_binomial` says."""
    total = 0.0
    for i in range(len(genes)):
        x = float(counts[i])
        if theta is None:
            total += x * math.log(x) - x
        else:
            t = float(theta[genes[i]])
            total += x * math.log(x / (x + t)) - t * math.log1p(x / t)
    return total


@part_of_kernel
def _poisson(genes, counts, mean):
    """Half the deviance but for ``x log x - x``: ``m - x log m``."""
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += mean[g]
    total = float(value)
    for i in range(len(genes)):
        total -= counts[i] * math.log(mean[genes[i]])
    return total


@part_of_kernel
def _bernoulli(genes, mean):
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += mean[g]
    total = float(value)
    for g in genes:
        m = float(mean[g])
        total -= log_odds(m, math.log(m))
    return total


@part_of_kernel
def _negative_binomial(genes, counts, mean, theta):
    """Half the deviance but for what no mean is in: ``t log(1 + m / t) + x log((m + t) / m)``.

    ``x log(x / m) - (x + t) log((x + t) / (m + t))`` less this is ``x log(x / (x + t)) - t log(1 + x / t)``.
    """
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += theta[g] * log1p(mean[g] / theta[g])
    total = float(value)
    for i in range(len(genes)):
        m = float(mean[genes[i]])
        total += counts[i] * math.log((m + float(theta[genes[i]])) / m)
    return total
