"""The linear decoder as one matrix, inputs x genes with the bias as its last row, and the way back to its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.nn._decoder import MOMENTUM
from sc_ldvae.nn._encoder import BATCH_NORM_EPS

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
        """The matrix; with BatchNorm, moments of its inputs `u` (n_cells x inputs) while training, else running ones."""
        weight = self.weight.value
        if self.gamma is None or self.beta is None:
            bias = np.zeros_like(weight[0]) if self.bias is None else self.bias.value
            return np.vstack([weight, bias])
        mean, cov = self._moments(u) if training else self._running
        self._mean, self._cov_weight = mean, cov @ weight
        self._inverse_sd = 1 / np.sqrt((self._cov_weight * weight).sum(0) + weight.dtype.type(BATCH_NORM_EPS))
        self._scale = self.gamma.value * self._inverse_sd
        return np.vstack([self._scale * weight, self.beta.value - self._scale * (mean @ weight)])

    def backward(self, d_matrix: Array) -> Array | None:
        """Fill the parameters' gradients from the matrix's; return what the moments add to that of `u`."""
        d_weight, d_bias = d_matrix[:-1], d_matrix[-1]
        if self.gamma is None or self.beta is None:
            self.weight.gradient[:] = d_weight
            if self.bias is not None:
                self.bias.gradient[:] = d_bias
            return None
        weight = self.weight.value
        d_scale = (d_weight * weight).sum(0) - d_bias * (self._mean @ weight)
        d_variance = d_scale * self._scale * self._inverse_sd**2 * -0.5
        d_mean_weight = -self._scale * d_bias
        self.gamma.gradient[:] = d_scale * self._inverse_sd
        self.beta.gradient[:] = d_bias
        self.weight.gradient[:] = (
            self._scale * d_weight + self._mean[:, None] * d_mean_weight + 2 * d_variance * self._cov_weight
        )
        d_cov = (weight * d_variance) @ weight.T
        return (weight @ d_mean_weight + 2 * self._centred @ d_cov) / len(self._centred)

    def _moments(self, u: Array) -> tuple[Array, Array]:
        mean = u.mean(0)
        self._centred = u - mean
        cov = self._centred.T @ self._centred / len(u)
        for running, now in zip(self._running, (mean, cov), strict=True):
            running += MOMENTUM * (now - running)
        return mean, cov
