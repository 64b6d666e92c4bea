"""The encoders' last layers, and one draw from the posterior that they give, forward and backward.

A head ``y = W x + b`` gives the mean in its first half, and the variance ``exp(y) + floor`` in its second. With the
gradient d y, which is that by the variance times exp(y) in the second half, ``d W = d y x'``, ``d b = d y`` and
``d x = W' d y``, the former two summed over cells.

The loss is ``w KL - log p`` with the sample ``a = mean + sd noise``; d is what the likelihood adds to the gradient by
a.
With the prior's moments (m, v), ``KL = (variance / v + (mean - m)^2 / v - 1 - log(variance / v)) / 2``. So the gradient

    by the mean is      d + w (mean - m) / v,
    by the variance is  d noise / (2 sd) + w (1 / v - 1 / variance) / 2.
"""

from __future__ import annotations

import math

from sc_ldvae.kernels._jit import kernel, kernel_of_all_numbers
from sc_ldvae.kernels._sums import add_products, add_scaled


@kernel
def head_forward(hidden, first, weight, bias, floor, both, mean, variance):
    """Fill mean and variance, n_cells x variables, from the columns of `hidden` that begin with `first`.

    `both` gets the mean beside the exponential, n_cells x (2 x variables).
    """
    n, width = mean.shape[1], weight.shape[1]
    for i in range(len(hidden)):
        y, own_mean, own_variance = both[i], mean[i], variance[i]
        for k in range(2 * n):
            y[k] = bias[k]
        add_products(y, weight, slice(0, width), hidden[i, first : first + width])
        for k in range(n):
            own_mean[k] = y[k]
            # The library's: it gives back what is no number.
            y[n + k] = math.exp(y[n + k])
            own_variance[k] = y[n + k] + floor


@kernel
def head_backward(hidden, first, weight, both, d_mean, d_variance, d_weight, d_bias, d_hidden):
    """Fill the gradients of weight and bias, and the same columns of that of `hidden`; `both` becomes that by y."""
    n, width = d_mean.shape[1], weight.shape[1]
    d_weight[:] = 0
    d_bias[:] = 0
    for i in range(len(hidden)):
        d_y, x, d_x = both[i], hidden[i, first : first + width], d_hidden[i, first : first + width]
        for k in range(n):
            d_y[k] = d_mean[i, k]
            d_y[n + k] *= d_variance[i, k]
        d_x[:] = 0
        for k in range(2 * n):
            d_bias[k] += d_y[k]
            add_scaled(d_weight[k], x, d_y[k])
            add_scaled(d_x, weight[k], d_y[k])


@kernel_of_all_numbers
def draw(mean, variance, noise, prior_means, prior_variances, group, sample, divergence):
    """Fill a draw from the posterior, and the divergence from the prior, n_cells x variables.

    The prior's moments are those of a cell's group.
    """
    half = mean.dtype.type(0.5)
    for i in range(len(mean)):
        m, v = prior_means[group[i]], prior_variances[group[i]]
        for k in range(mean.shape[1]):
            ratio, distance = variance[i, k] / v, mean[i, k] - m
            sample[i, k] = mean[i, k] + math.sqrt(variance[i, k]) * noise[i, k]
            divergence[i, k] = half * (ratio + distance * distance / v - 1 - math.log(ratio))


@kernel_of_all_numbers
def draw_backward(mean, variance, noise, prior_means, prior_variances, group, d_sample, weight, d_variance):
    """Fill the gradient by the variance, and turn that by the sample into that by the mean."""
    half, one = mean.dtype.type(0.5), mean.dtype.type(1)
    for i in range(len(mean)):
        m, v = prior_means[group[i]], prior_variances[group[i]]
        for k in range(mean.shape[1]):
            of_prior = weight * (one / v - one / variance[i, k])
            d_variance[i, k] = half * (d_sample[i, k] * noise[i, k] / math.sqrt(variance[i, k]) + of_prior)
            d_sample[i, k] += weight * (mean[i, k] - m) / v
