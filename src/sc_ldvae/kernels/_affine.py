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
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import add_scaled, dot, linear_map, positions


@kernel
def input_moments(u, momentum, centred, mean, cov, running_mean, running_cov):
    """Fill mean and covariance of all inputs but the last, which is 1, and the `centred` ones; move `running`."""
    n, n_inputs = centred.shape
    share = u.dtype.type(1) / u.dtype.type(n)
    mean[:] = 0
    cov[:] = 0
    for i in range(n):
        for k in range(n_inputs):
            mean[k] += u[i, k]
    for k in range(n_inputs):
        mean[k] *= share
    for i in range(n):
        row = centred[i]
        for k in range(n_inputs):
            row[k] = u[i, k] - mean[k]
        for k in range(n_inputs):
            add_scaled(cov[k], row, row[k])
    for k in range(n_inputs):
        running_mean[k] += momentum * (mean[k] - running_mean[k])
        for m in range(n_inputs):
            cov[k, m] *= share
            running_cov[k, m] += momentum * (cov[k, m] - running_cov[k, m])


@kernel
def fold_norm(weight, cov, mean, gamma, beta, eps, cov_weight, inverse_sd, matrix):
    """Fill S w (`cov_weight`), r (`inverse_sd`) and the folded `matrix`: as `weight` inputs x genes, the bias below."""
    n_inputs, n_genes = weight.shape
    one, bias, inputs = weight.dtype.type(1), matrix[n_inputs], positions(n_inputs)
    inverse_sd[:] = eps
    bias[:] = 0
    for k in range(n_inputs):
        row, cov_row = weight[k], cov_weight[k]
        linear_map(cov_row, weight, inputs, cov[k])
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


@parallel_kernel
def norm_backward(
    which, n_slices, weight, cov_weight, mean, gamma, inverse_sd, d_maps, place, d_weight, d_gamma, d_beta, d_moments
):
    """Fill the parameters' gradients, and what the genes of each slice add to those by the moments.

    Parameters
    ----------
    cov_weight
        S times `weight`.
    d_maps, place
        The gradient by the folded matrix is the sum of ``d_maps[:, place]``; the first summand becomes it.
    d_moments
        Filled with those by S, and by m as last row, slices x (inputs + 1) x inputs.
    """
    n_inputs, n_genes = weight.shape
    own = slice(which * n_genes // n_slices, (which + 1) * n_genes // n_slices)
    one, half, two = weight.dtype.type(1), weight.dtype.type(0.5), weight.dtype.type(2)
    for i in range(1, len(d_maps)):
        for k in range(n_inputs + 1):
            add_scaled(d_maps[0, place, k, own], d_maps[i, place, k, own], one)
    d_bias, r, gammas, d_gammas, d_betas = (
        d_maps[0, place, n_inputs, own],
        inverse_sd[own],
        gamma[own],
        d_gamma[own],
        d_beta[own],
    )
    n = len(r)
    for g in range(n):
        d_betas[g] = d_bias[g]
    # What the scale gets, through the weight and through the bias.
    rows = np.empty((5, n), weight.dtype)
    d_scale, minus_scaled, d_variance, scale, weighted = rows[0], rows[1], rows[2], rows[3], rows[4]
    d_scale[:] = 0
    for k in range(n_inputs):
        row, d_row = weight[k, own], d_maps[0, place, k, own]
        for g in range(n):
            d_scale[g] += row[g] * (d_row[g] - mean[k] * d_bias[g])
    for g in range(n):
        d_gammas[g] = d_scale[g] * r[g]
        scale[g] = gammas[g] * r[g]
    for g in range(n):
        minus_scaled[g] = -scale[g] * d_bias[g]
        d_variance[g] = -half * d_scale[g] * scale[g] * r[g] * r[g]
    for k in range(n_inputs):
        d_row, cov_row, out = d_maps[0, place, k, own], cov_weight[k, own], d_weight[k, own]
        for g in range(n):
            out[g] = scale[g] * d_row[g] + two * d_variance[g] * cov_row[g]
        add_scaled(out, minus_scaled, mean[k])
    of_moments = d_moments[which]
    for k in range(n_inputs):
        row = weight[k, own]
        of_moments[n_inputs, k] = dot(row, minus_scaled)
        for g in range(n):
            weighted[g] = row[g] * d_variance[g]
        for m in range(k + 1):
            of_moments[k, m] = dot(weight[m, own], weighted)
            of_moments[m, k] = of_moments[k, m]


@kernel
def through_moments(centred, d_moments, d_u):
    """Add what the moments have of the gradient by the inputs, n_cells x (inputs + 1), from what slices add."""
    n, n_inputs = centred.shape
    one, two = centred.dtype.type(1), centred.dtype.type(2)
    share, total = one / centred.dtype.type(n), d_moments[0]
    for i in range(1, len(d_moments)):
        for k in range(n_inputs + 1):
            add_scaled(total[k], d_moments[i, k], one)
    for i in range(n):
        row, d_row = centred[i], d_u[i, :n_inputs]
        add_scaled(d_row, total[n_inputs], share)
        for k in range(n_inputs):
            add_scaled(d_row, total[k], two * share * row[k])
