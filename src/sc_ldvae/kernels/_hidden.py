"""BatchNorm, ReLU and dropout of a hidden layer of several encoders at once, forward and backward."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import kernel


@kernel
def hidden_forward(h, gamma, beta, eps, kept, mean, variance, inverse_sd, normalised, out):
    """Fill moments (the variance biased) and inverse standard deviation per unit, `normalised` h, and `out`.

    `kept` is what survives of each hidden value: 0, or one over the share kept.
    """
    n, width = h.shape
    mean[:] = 0
    variance[:] = 0
    for i in range(n):
        row = h[i]
        for j in range(width):
            mean[j] += row[j]
    share = h.dtype.type(1) / h.dtype.type(n)
    for j in range(width):
        mean[j] *= share
    for i in range(n):
        row = h[i]
        for j in range(width):
            variance[j] += (row[j] - mean[j]) ** 2
    for j in range(width):
        variance[j] *= share
        inverse_sd[j] = 1 / np.sqrt(variance[j] + eps)
    zero = h.dtype.type(0)
    for i in range(n):
        row, normal, keep, result = h[i], normalised[i], kept[i], out[i]
        for j in range(width):
            normal[j] = (row[j] - mean[j]) * inverse_sd[j]
        for j in range(width):
            result[j] = keep[j] * max(gamma[j] * normal[j] + beta[j], zero)


@kernel
def hidden_backward(d_out, out, kept, normalised, gamma, inverse_sd, d_h, d_gamma, d_beta):
    """Fill the gradients of h, gamma and beta from those of `out`."""
    n, width = d_out.shape
    zero, share = d_out.dtype.type(0), d_out.dtype.type(1) / d_out.dtype.type(n)
    d_gamma[:] = 0
    d_beta[:] = 0
    for i in range(n):
        row, result, keep, normal, d_row = d_out[i], out[i], kept[i], normalised[i], d_h[i]
        for j in range(width):
            d_row[j] = row[j] * keep[j] if result[j] > zero else zero
        for j in range(width):
            d_beta[j] += d_row[j]
            d_gamma[j] += d_row[j] * normal[j]
    for i in range(n):
        normal, d_row = normalised[i], d_h[i]
        for j in range(width):
            centred = d_row[j] - share * d_beta[j] - share * d_gamma[j] * normal[j]
            d_row[j] = gamma[j] * inverse_sd[j] * centred
