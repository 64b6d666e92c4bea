"""The linear decoder as one matrix, inputs x genes with the bias as last row, and the way back to its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.nn._decoder import MOMENTUM
from sc_ldvae.nn._encoder import BATCH_NORM_EPS
from sc_ldvae.nn._fused._jit import kernel
from sc_ldvae.nn._fused._sums import add_products, add_scaled, matmul

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.nn._fused._flat import Flat

    Array = NDArray[np.floating[Any]]


class FusedDecoder:
    """`LinearDecoder` on arrays, with its gradient in closed form."""

    def __init__(self, decoder: LinearDecoder, flat: Flat) -> None:
        self.weight = flat.place(decoder.weight, transposed=True)
        self.bias = None if decoder.bias is None else flat.place(decoder.bias)
        self.gamma = None if decoder.gamma is None else flat.place(decoder.gamma)
        self.beta = None if decoder.beta is None else flat.place(decoder.beta)
        self._running = decoder.running_mean.numpy(), decoder.running_cov.numpy()

    def fold(self, u: Array, *, training: bool) -> Array:
        """The matrix; BatchNorm takes the moments of `u`, n_cells x inputs, or the running ones if not training."""
        weight = self.weight.value
        matrix = np.empty((len(weight) + 1, weight.shape[1]), weight.dtype)
        if self.gamma is None or self.beta is None:
            matrix[:-1] = weight
            matrix[-1] = 0 if self.bias is None else self.bias.value
            return matrix
        mean, cov = self._moments(u) if training else self._running
        self._mean: Array = mean
        self._cov_weight = matmul(cov, weight)
        self._inverse_sd, eps = np.empty_like(weight[0]), weight.dtype.type(BATCH_NORM_EPS)
        _fold(weight, self._cov_weight, self._mean, self.gamma.value, self.beta.value, eps, self._inverse_sd, matrix)
        return matrix

    def backward(self, d_matrix: Array) -> Array | None:
        """Fill the parameters' gradients from the matrix's; return what the moments add to that of `u`."""
        if self.gamma is None or self.beta is None:
            self.weight.gradient[:] = d_matrix[:-1]
            if self.bias is not None:
                self.bias.gradient[:] = d_matrix[-1]
            return None
        weight, d_weight = self.weight.value, self.weight.gradient
        d_mean, d_cov = np.zeros_like(self._mean), np.zeros((len(weight), len(weight)), weight.dtype)
        _backward(
            weight,
            self._cov_weight,
            self._mean,
            self.gamma.value,
            self._inverse_sd,
            d_matrix,
            d_weight,
            self.gamma.gradient,
            self.beta.gradient,
            d_mean,
            d_cov,
        )
        return (d_mean + 2 * self._centred @ d_cov) / weight.dtype.type(len(self._centred))

    def _moments(self, u: Array) -> tuple[Array, Array]:
        mean = u.mean(0)
        self._centred = u - mean
        cov = self._centred.T @ self._centred / u.dtype.type(len(u))
        for i, now in enumerate((mean, cov)):
            self._running[i][...] += MOMENTUM * (now - self._running[i])
        return mean, cov


@kernel
def _fold(weight, cov_weight, mean, gamma, beta, eps, inverse_sd, matrix):
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
def _backward(weight, cov_weight, mean, gamma, inverse_sd, d_matrix, d_weight, d_gamma, d_beta, d_mean, d_cov):
    n_inputs, n_genes = weight.shape
    d_bias, half, two = d_matrix[n_inputs], weight.dtype.type(0.5), weight.dtype.type(2)
    for g in range(n_genes):
        d_beta[g] = d_bias[g]
    # What the scale gets, through the weight and through the bias.
    d_scale = np.zeros_like(d_bias)
    for k in range(n_inputs):
        row, d_row = weight[k], d_matrix[k]
        for g in range(n_genes):
            d_scale[g] += row[g] * (d_row[g] - mean[k] * d_bias[g])
    minus_scaled, d_variance, scale = np.empty_like(d_bias), np.empty_like(d_bias), np.empty_like(d_bias)
    for g in range(n_genes):
        d_gamma[g] = d_scale[g] * inverse_sd[g]
        scale[g] = gamma[g] * inverse_sd[g]
    for g in range(n_genes):
        minus_scaled[g] = -scale[g] * d_bias[g]
        d_variance[g] = -half * d_scale[g] * scale[g] * inverse_sd[g] * inverse_sd[g]
    for k in range(n_inputs):
        d_row, cov_row, out = d_matrix[k], cov_weight[k], d_weight[k]
        for g in range(n_genes):
            out[g] = scale[g] * d_row[g] + two * d_variance[g] * cov_row[g]
        add_scaled(out, minus_scaled, mean[k])
    add_products(d_mean, weight, minus_scaled)
    weighted = np.empty_like(d_bias)
    for k in range(n_inputs):
        row = weight[k]
        for g in range(n_genes):
            weighted[g] = row[g] * d_variance[g]
        add_products(d_cov[k], weight, weighted)
