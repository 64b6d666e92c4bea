"""Deviance of counts under a decoder, and under it without some of its factors."""

from __future__ import annotations

import math

import numpy as np

from sc_ldvae.kernels._bernoulli import log_odds
from sc_ldvae.kernels._jit import kernel, log1p, part_of_kernel
from sc_ldvae.kernels._softmax import softmax
from sc_ldvae.kernels._sums import exp_of


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
    row, proportions = np.empty(n_genes, eta.dtype), np.empty(n_genes, eta.dtype)
    for cell in range(n):
        own = slice(indptr[cell], indptr[cell + 1])
        x_genes, x, logs = genes[own], counts[own], np.empty(len(counts[own]), eta.dtype)
        for i in range(out.shape[1]):
            base = null if i == 0 else eta[cell]
            for g in range(n_genes):
                row[g] = base[g]
            if i > 0:
                for k in range(len(loadings)):
                    if without[i - 1, k]:
                        change, effect = centred[cell, k], loadings[k]
                        for g in range(n_genes):
                            row[g] -= change * effect[g]
            if background is None:
                softmax(row, x_genes, proportions, logs)
            else:
                exp_of(proportions, row)
                if i > 0:
                    for g in range(n_genes):
                        proportions[g] += background[g]
            for g in range(n_genes):
                proportions[g] *= library[cell]
            if not_inflated is not None:
                if i > 0:
                    share = not_inflated[cell]
                    for g in range(n_genes):
                        proportions[g] *= share[g]
            if theta is None:
                if thresholded:
                    out[cell, i] = _bernoulli(x_genes, proportions)
                else:
                    out[cell, i] = _poisson(x_genes, x, proportions)
            else:
                out[cell, i] = _negative_binomial(x_genes, x, proportions, theta[cell])


@part_of_kernel
def _poisson(genes, counts, mean):
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += mean[g]
    total = float(value)
    for i in range(len(genes)):
        total += counts[i] * math.log(counts[i] / mean[genes[i]]) - counts[i]
    return 2 * total


@part_of_kernel
def _bernoulli(genes, mean):
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += mean[g]
    total = float(value)
    for g in genes:
        m = float(mean[g])
        total -= log_odds(m, math.log(m))
    return 2 * total


@part_of_kernel
def _negative_binomial(genes, counts, mean, theta):
    value = mean.dtype.type(0)
    for g in range(len(mean)):
        value += theta[g] * log1p(mean[g] / theta[g])
    total = float(value)
    for i in range(len(genes)):
        g, x = genes[i], float(counts[i])
        m, t = float(mean[g]), float(theta[g])
        total += x * math.log(x / m) - (x + t) * math.log((x + t) / (m + t)) - t * math.log1p(m / t)
    return 2 * total
