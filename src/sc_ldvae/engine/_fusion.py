"""What several encoders say together of the latent: a product of experts, and the way back through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats, Positions


# With the precisions ``t_m = 1 / v_m``: ``v = 1 / (1 + sum t_m)`` and ``mean = v sum t_m mean_m``. So
#   d mean / d mean_m = v t_m,   d mean / d t_m = v (mean_m - mean),   d v / d t_m = -v^2,   d t_m / d v_m = -t_m^2.
class FusedProduct:
    """`sc_ldvae.nn.Product` on arrays, with its gradient in closed form."""

    def forward(
        self, n_cells: int, experts: Sequence[tuple[Positions | slice, Floats, Floats]]
    ) -> tuple[Floats, Floats]:
        """Mean and variance of `n_cells` cells, from the positions of each expert's, their means and variances."""
        self._experts = experts
        (_, some, _), *_ = experts
        precision = np.ones((n_cells, some.shape[1]), some.dtype)
        weighed = np.zeros_like(precision)
        for cells, mean, variance in experts:
            precision[cells] += 1 / variance
            weighed[cells] += mean / variance
        self._mean, self._variance = weighed / precision, 1 / precision
        return self._mean, self._variance

    def backward(self, d_mean: Floats, d_variance: Floats) -> list[tuple[Floats, Floats]]:
        """Gradients by the means and variances of each expert."""
        by_precision = -d_variance * self._variance**2
        d_mean = d_mean * self._variance
        gradients: list[tuple[Floats, Floats]] = []
        for cells, mean, variance in self._experts:
            own = d_mean[cells]
            d_precision = own * (mean - self._mean[cells]) + by_precision[cells]
            gradients.append((own / variance, -d_precision / variance**2))
        return gradients
