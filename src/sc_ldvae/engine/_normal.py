"""Independent normal variables of cells: posterior, prior, one draw, and the way back from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae.kernels import draw, draw_backward

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats


class Prior(NamedTuple):
    """Normal variables of cells in groups."""

    means: Floats
    """One for each group, the same for all variables."""
    variances: Floats
    group: NDArray[np.int64]
    """Of each cell."""


class Noise:
    """Standard normal numbers for cells, which take the place of those before."""

    def __init__(self, n_variables: int, like: torch.Tensor) -> None:
        self._tensor = like.new_empty((0, n_variables))
        self._array = self._tensor.numpy()

    def draw(self, n_cells: int, generator: torch.Generator | None) -> Floats:
        """As many as there are variables of each cell."""
        if len(self._array) != n_cells:
            self._tensor = self._tensor.new_empty((n_cells, self._tensor.shape[1]))
            self._array = self._tensor.numpy()
        self._tensor.normal_(generator=generator)
        return self._array


class Drawn(NamedTuple):
    """Posterior, prior and one draw, each n_cells x variables."""

    mean: Floats
    variance: Floats
    noise: Floats
    sample: Floats
    divergence: Floats
    """Kullback-Leibler divergence from the prior."""
    prior: Prior

    @classmethod
    def of(cls, moments: tuple[Floats, Floats], prior: Prior, noise: Floats) -> Drawn:
        """A draw from a posterior of these moments."""
        mean, variance = moments
        sample, divergence = np.empty((2, *mean.shape), mean.dtype)
        draw(mean, variance, noise, *prior, sample, divergence)
        return cls(mean, variance, noise, sample, divergence, prior)

    @property
    def log_density_ratio(self) -> Floats:
        """Log density of the draw under the prior, less that under the posterior, n_cells."""
        means, variances = (moments[self.prior.group, None] for moments in self.prior[:2])
        squares = (self.sample - means) ** 2 / variances
        return 0.5 * (self.noise**2 - squares + np.log(self.variance / variances)).sum(1)

    def backward(self, d_sample: Floats, weight: np.floating[Any]) -> tuple[Floats, Floats]:
        """Gradients by mean and variance, from that of the likelihood by the draw, which is lost, and KL's weight."""
        d_variance = np.empty_like(d_sample)
        draw_backward(self.mean, self.variance, self.noise, *self.prior, d_sample, weight, d_variance)
        return d_sample, d_variance
