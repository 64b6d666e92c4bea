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
        self._d_moments = np.empty((len(self.weight.value) + 1, len(self.weight.value)), self.weight.value.dtype)

    def stretches(self) -> list[Stretch]:
        """Of all its parameters."""
        return [stretch for stretch in (self.weight, self.bias, self.gamma, self.beta) if stretch is not None]

    def fold(self, u: Floats, matrix: Floats, *, training: bool) -> None:
        """Fill the matrix; BatchNorm takes the moments of `u`, n_cells x (inputs and 1), or else the running ones."""
        weight = self.weight.value
        if self.gamma is None or self.beta is None:
            matrix[:-1] = weight
            matrix[-1] = 0 if self.bias is None else self.bias.value
            return
        mean, cov = self._moments(u[:, :-1]) if training else self._running
        self._mean: Floats = mean
        self._cov_weight = matmul(cov, weight)
        self._inverse_sd, eps = np.empty_like(weight[0]), weight.dtype.type(BATCH_NORM_EPS)
        fold_norm(
            weight, self._cov_weight, self._mean, self.gamma.value, self.beta.value, eps, self._inverse_sd, matrix
        )

    def backward(self, d_matrix: Floats, d_u: Floats) -> None:
        """Fill the parameters' gradients from the matrix's; add what the moments have of it to that of the inputs."""
        if self.gamma is None or self.beta is None:
            self.weight.gradient[:] = d_matrix[:-1]
            if self.bias is not None:
                self.bias.gradient[:] = d_matrix[-1]
            return
        norm_backward(
            self.weight.value,
            self._cov_weight,
            self._mean,
            self.gamma.value,
            self._inverse_sd,
            self._centred,
            d_matrix,
            self.weight.gradient,
            self.gamma.gradient,
            self.beta.gradient,
            self._d_moments,
            d_u,
        )

    def _moments(self, u: Floats) -> tuple[Floats, Floats]:
        mean = u.mean(0)
        self._centred = u - mean
        cov = matmul(self._centred.T, self._centred) / u.dtype.type(len(u))
        for i, now in enumerate((mean, cov)):
            self._running[i][...] += MOMENTUM * (now - self._running[i])
        return mean, cov
