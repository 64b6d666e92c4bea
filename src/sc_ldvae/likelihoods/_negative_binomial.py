"""Negative binomial counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood, Part
from sc_ldvae.likelihoods._spread import spread_deviances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

# What simulated genes have: the median inverse dispersion and the spread of its log.
_SIMULATED_THETA, _SIMULATED_SD = 4.0, 0.5


def _theta(log_theta: Floats) -> Floats:
    return np.exp(np.clip(log_theta, -LARGEST_LOG_THETA, LARGEST_LOG_THETA))


THETA = Part("log_theta", "theta", _theta, depends_on="dispersion")


class NegativeBinomial(Likelihood):
    """Variance ``m + m**2 / theta`` at mean m and inverse dispersion theta."""

    name = "nb"
    parts: ClassVar[tuple[Part, ...]] = (THETA,)

    def theta(self, linear: Mapping[str, Floats]) -> Floats:
        """Inverse dispersions."""
        return _theta(linear["log_theta"])

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:
        """Dispersions at their moments."""
        return {"log_theta": log_theta_by_moments(counts, library)}

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Twice ``x log(x / m) - (x + theta) log((x + theta) / (m + theta))``, summed over genes."""
        return spread_deviances(counts, contrasts, self.theta(linear), None)

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``theta m (x + theta) / (theta + m)**2``, in single precision."""
        theta = self.theta(linear).astype(np.float32)
        share = theta / (theta + mean)
        return share * mean * (counts.toarray() + theta) / (theta + mean)

    def expected_information(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``m / (1 + m / theta)``."""
        return mean / (1 + mean / self.theta(linear))

    def draw(
        self, mean: Floats, natural: Mapping[str, Floats], streams: Sequence[np.random.Generator]
    ) -> NDArray[np.int64]:
        """Poisson counts whose rate has a gamma distribution."""
        # Of each count one draw, also where the genes have one theta for all cells.
        theta = np.broadcast_to(natural["theta"], mean.shape)
        return streams[1].poisson(mean * (streams[0].standard_gamma(theta) / theta))

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Log normal dispersions."""
        return {"theta": _SIMULATED_THETA * np.exp(rng.normal(0, _SIMULATED_SD, n_genes))}


def log_theta_by_moments(counts: csr_matrix, library: Floats) -> NDArray[np.float64]:
    """Log inverse dispersion of each gene, n_genes, from its variance beyond Poisson at its mean proportion."""
    relative = library / library.mean()
    mean = np.asarray(counts.mean(0)).ravel()
    mean_square = np.asarray(counts.multiply(counts).mean(0)).ravel()
    explained = mean**2 * np.mean(relative**2)
    # Bounds: a start far outside of them has no gradient to come back with.
    theta = explained / np.maximum(mean_square - mean - explained, explained / 100 + np.finfo(float).tiny)
    return np.log(np.clip(theta, 0.1, 100))
