"""Deviance of counts under a decoder, and under it without some of its factors.

Without factors, a gene's log expression is what is left of it plus an offset of the gene, the same in all cells: so the
sets of factors come twice, first to say what is expected of each gene, then with the offsets that follow. From set to
set a cell's log expression changes by the factors in which they differ.
"""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._bernoulli import log_odds
from sc_ldvae.kernels._jit import exp, log, log1p, part_of_kernel
from sc_ldvae.kernels._maximum import maximum
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import add_scaled, scale

# Below it, 1 - exp(-m) loses digits of which the series has all but 1e-7.
_SERIES = 0.05


@parallel_kernel
def expected_totals(
    which, n_slices, library, eta, centred, loadings, changes, not_inflated, has_library, thresholded, out
):
    """Fill each gene's expected count without each set of factors, summed over the cells of each slice.

    Parameters
    ----------
    n_slices
        Slices of the cells.
    library, eta, centred, loadings, changes, not_inflated, thresholded
        As in `deviances`; if `thresholded`, totals are numbers of cells with any count.
    has_library
        Whether there is a softmax. Without, what a background adds is in no total.
    out
        Filled: slices x sets x genes.
    """
    (n_cells, n_genes), n_sets = eta.shape, len(changes)
    rows = np.empty((2, n_genes), eta.dtype)
    row, mean = rows[0], rows[1]
    out[which] = 0
    for cell in range(which * n_cells // n_slices, (which + 1) * n_cells // n_slices):
        row[:] = eta[cell]
        for i in range(n_sets):
            _change(row, changes[i], centred[cell], loadings)
            _express(mean, row, library[cell], has_library)
            if not_inflated is not None:
                _multiply(mean, not_inflated[cell])
            if thresholded:
                for g in range(n_genes):
                    m = mean[g]
                    mean[g] = m - m * m * (1 / 2 - m / 6) if m < _SERIES else 1 - exp(-m)
            add_scaled(out[which, i], mean, mean.dtype.type(1))


@parallel_kernel
def deviances(
    which,
    n_slices,
    indptr,
    genes,
    counts,
    library,
    null,
    eta,
    centred,
    loadings,
    changes,
    offsets,
    theta,
    not_inflated,
    background,
    thresholded,
    out,
):
    """Fill what the mean adds to half of each cell's deviance, under the null and the decoder without sets of factors.

    Parameters
    ----------
    n_slices
        Slices of the cells.
    indptr, genes, counts
        Counts in compressed rows.
    library
        Library, n_cells.
    null, eta
        Log proportions up to a constant, genes and n_cells x genes.
    centred, loadings
        Latent from its mean, n_cells x factors, and loadings, factors x genes: what a factor adds to `eta`.
    changes
        How often each factor is added from set to set, n_sets x factors: -1 where it is left out, 1 where it comes back.
    offsets
        Added to `eta` without each set, n_sets x genes.
    theta
        Inverse dispersions, of each cell or one for all x genes; None for Poisson.
    not_inflated
        Share of the counts that zero inflation leaves, n_cells x genes; None without.
    background
        Added to the expression, genes, where `null` is the log mean and `eta` the log expression at library 1; None
        where there is a softmax, and no background.
    thresholded
        Whether only is seen that counts are above zero; without theta.
    out
        Filled: n_cells x (1 + n_sets).
    """
    (n_cells, n_genes), n_sets = eta.shape, len(changes)
    rows = np.empty((5, n_genes), eta.dtype)
    row, shifted, mean, scratch, inverse = rows[0], rows[1], rows[2], rows[3], rows[4]
    for cell in range(which * n_cells // n_slices, (which + 1) * n_cells // n_slices):
        x_genes, x = genes[indptr[cell] : indptr[cell + 1]], counts[indptr[cell] : indptr[cell + 1]]
        row[:] = eta[cell]
        if theta is not None:
            of_cell = theta[min(cell, len(theta) - 1)]
            for g in range(n_genes):
                inverse[g] = 1 / of_cell[g]
        for i in range(1 + n_sets):
            if i == 0:
                shifted[:] = null
            else:
                _change(row, changes[i - 1], centred[cell], loadings)
                offset = offsets[i - 1]
                for g in range(n_genes):
                    shifted[g] = row[g] + offset[g]
            _express(mean, shifted, library[cell], background is None)
            if i > 0 and background is not None:
                add_scaled(mean, background, library[cell])
            if i > 0 and not_inflated is not None:
                _multiply(mean, not_inflated[cell])
            if theta is not None:
                of_cell = theta[min(cell, len(theta) - 1)]
                out[cell, i] = _negative_binomial(x_genes, x, mean, of_cell, inverse, scratch)
            else:
                out[cell, i] = _poisson(x_genes, x, mean, thresholded, scratch)


@part_of_kernel
def _change(row, changes, centred, loadings):
    """From the log expression without one set of factors to that without another."""
    for k in range(len(changes)):
        if changes[k] != 0:
            add_scaled(row, loadings[k], changes[k] * centred[k])


@part_of_kernel
def _express(expression, eta, library, has_library):
    largest, total = maximum(eta) if has_library else eta.dtype.type(0), eta.dtype.type(0)
    for g in range(len(eta)):
        expression[g] = exp(eta[g] - largest)
        total += expression[g]
    scale(expression, library / total if has_library else library)


@part_of_kernel
def _multiply(x, y):
    for j in range(len(x)):
        x[j] *= y[j]


@part_of_kernel
def _poisson(genes, counts, mean, thresholded, scratch):
    """``m - x log m``, or of a count that is only seen to be there ``-log(exp(m) - 1)`` in place of ``-x log m``."""
    value, of_nonzeros = mean.dtype.type(0), mean.dtype.type(0)
    for g in range(len(mean)):
        value += mean[g]
    for j in range(len(genes)):
        scratch[j] = mean[genes[j]]
    for j in range(len(genes)):
        of_nonzeros += log_odds(scratch[j], log(scratch[j])) if thresholded else counts[j] * log(scratch[j])
    return value - of_nonzeros


@part_of_kernel
def _negative_binomial(genes, counts, mean, theta, inverse, scratch):
    """``t log(1 + m / t) - x log(m / (m + t))``."""
    value, of_nonzeros = mean.dtype.type(0), mean.dtype.type(0)
    for g in range(len(mean)):
        value += theta[g] * log1p(mean[g] * inverse[g])
    for j in range(len(genes)):
        m = mean[genes[j]]
        scratch[j] = m / (m + theta[genes[j]])
    for j in range(len(genes)):
        of_nonzeros += counts[j] * log(scratch[j])
    return value - of_nonzeros
