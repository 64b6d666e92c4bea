"""The linear decoder as one matrix, inputs x genes with the bias as last row, and the way back to its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.engine._flat import Rooms
from sc_ldvae.kernels import fold_norm, input_moments, norm_backward
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
        weight = self.weight.value
        self._cov_weight, self._inverse_sd = np.empty_like(weight), np.empty_like(weight[0])
        self._mean, self._cov = (np.empty_like(moment) for moment in self._running)
        self._d_moments, self._rooms = np.empty((len(weight) + 1, len(weight)), weight.dtype), Rooms(weight.dtype)

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
        number = weight.dtype.type
        mean, cov = self._running
        if training:
            self._centred, mean, cov = self._rooms("centred", len(u), len(weight)), self._mean, self._cov
            input_moments(u, number(MOMENTUM), self._centred, mean, cov, *self._running)
        scales = self.gamma.value, self.beta.value, number(BATCH_NORM_EPS)
        fold_norm(weight, cov, mean, *scales, self._cov_weight, self._inverse_sd, matrix)

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
