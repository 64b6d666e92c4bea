"""The linear decoder as one matrix, inputs x genes with the bias as last row, and the way back to its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.kernels import fold_norm, matmul, norm_backward
from sc_ldvae.nn import BATCH_NORM_EPS, MOMENTUM

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._flat import Flat, Stretch
    from sc_ldvae.nn import LinearDecoder


class FusedDecoder:
    """`LinearDecoder` on arrays, with its gradient in closed form."""

    def __init__(self, decoder: LinearDecoder, flat: Flat) -> None:
        self.weight = flat.place(decoder.weight, transposed=True)
        self.bias = None if decoder.bias is None else flat.place(decoder.bias)
        self.gamma = None if decoder.gamma is None else flat.place(decoder.gamma)
        self.beta = None if decoder.beta is None else flat.place(decoder.beta)
        self._running = decoder.running_mean.numpy(), decoder.running_cov.numpy()

    def stretches(self) -> list[Stretch]:
        """Of all its parameters."""
        return [stretch for stretch in (self.weight, self.bias, self.gamma, self.beta) if stretch is not None]

    def fold(self, u: Floats, matrix: Floats, *, training: bool) -> None:
        """Fill the matrix; BatchNorm takes the moments of `u`, n_cells x inputs, or else the running ones."""
        weight = self.weight.value
        if self.gamma is None or self.beta is None:
            matrix[:-1] = weight
            matrix[-1] = 0 if self.bias is None else self.bias.value
            return
        mean, cov = self._moments(u) if training else self._running
        self._mean: Floats = mean
        self._cov_weight = matmul(cov, weight)
        self._inverse_sd, eps = np.empty_like(weight[0]), weight.dtype.type(BATCH_NORM_EPS)
        fold_norm(
            weight, self._cov_weight, self._mean, self.gamma.value, self.beta.value, eps, self._inverse_sd, matrix
        )

    # The moments are those of u: with n cells, the centred inputs c and the gradients d m, d S by mean and covariance
    # (`norm_backward`), the gradient by u is ``(d m + 2 c d S) / n``.
    def backward(self, d_matrix: Floats) -> Floats | None:
        """Fill the parameters' gradients from the matrix's; return what the moments add to that of `u`."""
        if self.gamma is None or self.beta is None:
            self.weight.gradient[:] = d_matrix[:-1]
            if self.bias is not None:
                self.bias.gradient[:] = d_matrix[-1]
            return None
        weight, d_weight = self.weight.value, self.weight.gradient
        d_mean, d_cov = np.zeros_like(self._mean), np.zeros((len(weight), len(weight)), weight.dtype)
        norm_backward(
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
        return (d_mean + 2 * matmul(self._centred, d_cov)) / weight.dtype.type(len(self._centred))

    def _moments(self, u: Floats) -> tuple[Floats, Floats]:
        mean = u.mean(0)
        self._centred = u - mean
        cov = matmul(self._centred.T, self._centred) / u.dtype.type(len(u))
        for i, now in enumerate((mean, cov)):
            self._running[i][...] += MOMENTUM * (now - self._running[i])
        return mean, cov
