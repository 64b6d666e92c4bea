"""Independent normal variables of cells: posterior, prior, one draw, and the way back from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats


class Drawn(NamedTuple):
    """Posterior, prior and one draw, each n_cells x variables; moments of a prior may be one number."""

    mean: Floats
    variance: Floats
    noise: Floats
    sd: Floats
    sample: Floats
    prior_mean: Floats | float
    prior_variance: Floats | float

    @classmethod
    def of(
        cls,
        moments: tuple[Floats, Floats],
        prior: tuple[Floats | float, Floats | float],
        generator: torch.Generator | None,
    ) -> Drawn:
        """A draw from a posterior of these moments."""
        mean, variance = moments
        empty = torch.empty(mean.shape, dtype=torch.from_numpy(mean[:0]).dtype, device="cpu")
        noise, sd = empty.normal_(generator=generator).numpy(), np.sqrt(variance)
        return cls(mean, variance, noise, sd, mean + sd * noise, *prior)

    @property
    def divergence(self) -> Floats:
        """Kullback-Leibler divergence of each variable, n_cells x variables."""
        ratio = self.variance / self.prior_variance
        return 0.5 * (ratio + self._distance * (self.mean - self.prior_mean) - 1 - np.log(ratio))

    @property
    def log_density_ratio(self) -> Floats:
        """Log density of the draw under the prior, less that under the posterior, n_cells."""
        squares = (self.sample - self.prior_mean) ** 2 / self.prior_variance
        return 0.5 * (self.noise**2 - squares + np.log(self.variance / self.prior_variance)).sum(1)

    # The loss is ``w KL - log p`` with the sample ``a = mean + sd noise``; d is what the likelihood adds to the
    # gradient by a. With the prior's moments (m, v),
    #   ``KL = ((variance + (mean - m)^2) / v - 1 - log(variance / v)) / 2``:
    #   by mean: d + w (mean - m) / v,   by variance: d noise / (2 sd) + w (1 / v - 1 / variance) / 2.
    def backward(self, d_sample: Floats, weight: np.floating[Any]) -> tuple[Floats, Floats]:
        """Gradients by mean and variance, from that of the likelihood by the draw and the divergence's weight."""
        d_variance = 0.5 * (d_sample * self.noise / self.sd + weight * (1 / self.prior_variance - 1 / self.variance))
        return d_sample + weight * self._distance, d_variance

    @property
    def _distance(self) -> Floats:
        return (self.mean - self.prior_mean) / self.prior_variance
