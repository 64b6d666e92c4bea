"""The linear decoder's BatchNorm folded into its weights, and the way back.

With inputs u of mean m and covariance S, and a gene's w, gamma and beta, the output of BatchNorm is affine in u:
``s w' u + b`` with ``v = w' S w``, ``r = (v + eps)^(-1/2)``, the scale ``s = gamma r`` and ``b = beta - s w' m``.
Given the gradients F of the folded weights s w, and f of b:

    d beta = f,   d s = w' (F - m f),   d gamma = r d s,   d v = -1/2 d s s r^2,
    d w = s (F - m f) + 2 d v S w,   and summed over genes   d m = -s f w,   d S = d v w w'.

The moments are those of n cells: with the centred inputs c, the gradient by u is ``(d m + 2 c d S) / n``.
"""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import kernel
from sc_ldvae.kernels._sums import dot


@kernel
def fold_norm(weight, cov_weight, mean, gamma, beta, eps, inverse_sd, matrix):
    """Fill r (`inverse_sd`) and the folded `matrix`: as `weight` inputs x genes, and the bias as last row."""
    n_inputs, n_genes = weight.shape
    one, bias = weight.dtype.type(1), matrix[n_inputs]
    inverse_sd[:] = eps
    bias[:] = 0
    for k in range(n_inputs):
        row, cov_row = weight[k], cov_weight[k]
        for g in range(n_genes):
            inverse_sd[g] += row[g] * cov_row[g]
            bias[g] -= mean[k] * row[g]
    for g in range(n_genes):
        inverse_sd[g] = one / np.sqrt(inverse_sd[g])
    for g in range(n_genes):
        bias[g] = beta[g] + gamma[g] * inverse_sd[g] * bias[g]
    for k in range(n_inputs):
        row, folded = weight[k], matrix[k]
        for g in range(n_genes):
            folded[g] = gamma[g] * inverse_sd[g] * row[g]


@kernel
def norm_backward(
    weight, cov_weight, mean, gamma, inverse_sd, centred, d_matrix, d_weight, d_gamma, d_beta, d_moments, d_u
):
    """Fill the parameters' gradients, and add what the moments have of that by the inputs.

    Parameters
    ----------
    cov_weight
        S times `weight`.
    centred
        Inputs less their mean, n_cells x inputs.
    d_matrix
        Gradient by the folded matrix.
    d_moments
        Filled with those by S, and by m as last row, (inputs + 1) x inputs.
    d_u
        Added to, n_cells x (inputs + 1).
    """
    n_inputs, n_genes = weight.shape
    d_bias, half, two = d_matrix[n_inputs], weight.dtype.type(0.5), weight.dtype.type(2)
    for g in range(n_genes):
        d_beta[g] = d_bias[g]
    # What the scale gets, through the weight and through the bias.
    rows = np.empty((5, n_genes), weight.dtype)
    d_scale, minus_scaled, d_variance, scale, weighted = rows[0], rows[1], rows[2], rows[3], rows[4]
    d_scale[:] = 0
    for k in range(n_inputs):
        row, d_row = weight[k], d_matrix[k]
        for g in range(n_genes):
            d_scale[g] += row[g] * (d_row[g] - mean[k] * d_bias[g])
    for g in range(n_genes):
        d_gamma[g] = d_scale[g] * inverse_sd[g]
        scale[g] = gamma[g] * inverse_sd[g]
    for g in range(n_genes):
        minus_scaled[g] = -scale[g] * d_bias[g]
        d_variance[g] = -half * d_scale[g] * scale[g] * inverse_sd[g] * inverse_sd[g]
    for k in range(n_inputs):
        row, d_row, cov_row, out = weight[k], d_matrix[k], cov_weight[k], d_weight[k]
        for g in range(n_genes):
            out[g] = scale[g] * d_row[g] + two * d_variance[g] * cov_row[g] + mean[k] * minus_scaled[g]
        d_moments[n_inputs, k] = dot(row, minus_scaled)
        for g in range(n_genes):
            weighted[g] = row[g] * d_variance[g]
        for m in range(k + 1):
            d_moments[k, m] = d_moments[m, k] = dot(weight[m], weighted)
    share = weight.dtype.type(1) / weight.dtype.type(len(centred))
    for i in range(len(centred)):
        for k in range(n_inputs):
            d_u[i, k] += share * (d_moments[n_inputs, k] + two * dot(d_moments[k], centred[i]))
