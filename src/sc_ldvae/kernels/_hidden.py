"""BatchNorm, ReLU and dropout of a hidden layer of several encoders at once, forward and backward."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import kernel
from sc_ldvae.kernels._kept import fill_kept


@kernel
def hidden_forward(h, bias, gamma, beta, eps, momentum, seeds, rates, running, moments, kept, normalised, out):
    """Fill `kept`, what survives of each hidden value (0, or one over the share kept), `normalised` h, and `out`.

    Parameters
    ----------
    h
        What the linear layers give without their `bias`, which BatchNorm cancels, n_cells x units.
    seeds, rates
        Of each encoder's dropout; each has as many units.
    running
        Mean and unbiased variance of h with the bias, 2 x units: moved by `momentum` towards those of these cells.
    moments
        Filled: mean, variance (biased) and inverse standard deviation of h, 3 x units.
    """
    n, width = h.shape
    own = width // len(seeds)
    for i in range(len(seeds)):
        fill_kept(seeds[i], rates[i], i * own, own, kept)
    mean, variance, inverse_sd = moments[0], moments[1], moments[2]
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
    unbiased = h.dtype.type(n) / h.dtype.type(n - 1)
    running_mean, running_variance = running[0], running[1]
    for j in range(width):
        running_mean[j] += momentum * (mean[j] + bias[j] - running_mean[j])
        running_variance[j] += momentum * (variance[j] * unbiased - running_variance[j])
    zero = h.dtype.type(0)
    for i in range(n):
        row, normal, keep, result = h[i], normalised[i], kept[i], out[i]
        for j in range(width):
            normal[j] = (row[j] - mean[j]) * inverse_sd[j]
        for j in range(width):
            result[j] = keep[j] * max(gamma[j] * normal[j] + beta[j], zero)


@kernel
def hidden_backward(d_out, out, kept, normalised, gamma, inverse_sd, d_gamma, d_beta):
    """Turn the gradient by `out` into that by h; fill those by gamma and beta."""
    n, width = d_out.shape
    zero, share = d_out.dtype.type(0), d_out.dtype.type(1) / d_out.dtype.type(n)
    d_gamma[:] = 0
    d_beta[:] = 0
    for i in range(n):
        d_row, result, keep, normal = d_out[i], out[i], kept[i], normalised[i]
        for j in range(width):
            d_row[j] = d_row[j] * keep[j] if result[j] > zero else zero
        for j in range(width):
            d_beta[j] += d_row[j]
            d_gamma[j] += d_row[j] * normal[j]
    for i in range(n):
        normal, d_row = normalised[i], d_out[i]
        for j in range(width):
            centred = d_row[j] - share * d_beta[j] - share * d_gamma[j] * normal[j]
            d_row[j] = gamma[j] * inverse_sd[j] * centred
