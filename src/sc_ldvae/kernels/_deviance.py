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


# Expected counts and deviances are one kernel, for its first half is the same and would be compiled twice.
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
    inverse_theta,
    not_inflated,
    background,
    thresholded,
    totals,
    out,
):
    """Fill what the mean adds to half of each cell's deviance, or `totals` where `out` has no cells.

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
        How often each factor is added from set to set, (1 + n_sets) x factors: -1 where it is left out. First for the
        null, of nothing.
    offsets
        Added to `eta` without each set, (1 + n_sets) x genes; first zeros.
    theta, inverse_theta
        Inverse dispersions, of each cell or one for all x genes, and one over them; None for Poisson.
    not_inflated
        Share of the counts that zero inflation leaves, n_cells x genes; None without.
    background
        Added to the expression, genes, where `null` is the log mean and `eta` the log expression at library 1; None
        where there is a softmax, and no background.
    thresholded
        Whether only is seen that counts are above zero; None with theta. (What is None leaves out what it would need.)
    totals
        Filled: each gene's expected count without each set, or number of cells with any, over the cells of a slice:
        slices x n_sets x genes.
    out
        Filled: under the null, and under the decoder without each set, n_cells x (1 + n_sets).
    """
    (n_cells, n_genes), of_genes = eta.shape, len(out) == 0
    rows = np.empty((4, n_genes), eta.dtype)
    row, shifted, mean, scratch = rows[0], rows[1], rows[2], rows[3]
    if of_genes:
        totals[which] = 0
    for cell in range(which * n_cells // n_slices, (which + 1) * n_cells // n_slices):
        x_genes, x = genes[indptr[cell] : indptr[cell + 1]], counts[indptr[cell] : indptr[cell + 1]]
        _add(row, eta[cell], offsets[0])
        # First the null, of which no total is asked for.
        for i in range(1 if of_genes else 0, len(offsets)):
            _change(row, changes[i], centred[cell], loadings)
            _add(shifted, row if i > 0 else null, offsets[i])
            _express(mean, shifted, library[cell], background is None)
            if background is not None:
                if i > 0:
                    add_scaled(mean, background, library[cell])
            if not_inflated is not None:
                if i > 0:
                    share = not_inflated[cell]
                    for g in range(n_genes):
                        mean[g] *= share[g]
            if thresholded is not None:
                if of_genes and thresholded:
                    for g in range(n_genes):
                        m = mean[g]
                        mean[g] = m - m * m * (1 / 2 - m / 6) if m < _SERIES else 1 - exp(-m)
            if of_genes:
                add_scaled(totals[which, i - 1], mean, mean.dtype.type(1))
            elif thresholded is not None:
                out[cell, i] = _poisson(x_genes, x, mean, thresholded, scratch)
            elif theta is not None:
                own = min(cell, len(theta) - 1)
                out[cell, i] = _negative_binomial(x_genes, x, mean, theta[own], inverse_theta[own], scratch)


@part_of_kernel
def _add(out, x, y):
    for j in range(len(out)):
        out[j] = x[j] + y[j]


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
