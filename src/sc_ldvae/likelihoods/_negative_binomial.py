"""Negative binomial counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.special import digamma, polygamma

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.likelihoods._likelihood import Contrasts, Derivatives, Likelihood, Part
from sc_ldvae.likelihoods._spread import spread_deviances, spread_totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix

    from sc_ldvae._typing import Floats

# A log theta moves by no more in a step.
_LONGEST = 3.0
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

    def expected_totals(self, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """Expression, summed over the cells."""
        return spread_totals(contrasts, None, has_library=self.has_library, dispersed=True)

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Twice ``x log(x / m) - (x + theta) log((x + theta) / (m + theta))``, summed over genes."""
        return spread_deviances(counts, contrasts, self.theta(linear), None)

    def slope(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``theta (x - m) / (theta + m)``, in single precision."""
        theta = self.theta(linear).astype(np.float32)
        return theta * (counts.toarray() - mean) / (theta + mean)

    def updated(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> dict[str, Floats]:
        """Dispersions one step nearer to the mode of their posterior, whose prior is that of the fit.

        With ``t = log theta``, standard normal under the prior, the slope of a gene is ``theta s - t``, where
        ``s = sum psi(x + theta) - psi(theta) - log(1 + m / theta) + (m - x) / (theta + m)`` over its cells.
        """
        theta = self.theta(linear)
        of_genes = counts.tocsc()
        places = np.repeat(np.arange(counts.shape[1]), np.diff(of_genes.indptr))
        x, own = of_genes.data.astype(np.float64), theta[places]

        # Most counts are one, whose terms need no special function.
        first, second, many = 1 / own, -1 / own**2, x > 1
        first[many] = digamma(x[many] + own[many]) - digamma(own[many])
        second[many] = polygamma(1, x[many] + own[many]) - polygamma(1, own[many])
        per_mean = 1 / (theta.astype(np.float32) + mean)
        ratio, residual = mean / theta.astype(np.float32), (counts.toarray() - mean) * per_mean
        slope, curvature = (np.bincount(places, values, counts.shape[1]) for values in (first, second))
        slope -= (np.log1p(ratio) + residual).sum(0, dtype=np.float64)
        curvature += (per_mean * (ratio + residual)).sum(0, dtype=np.float64)
        return dict(linear) | {"log_theta": _stepped(theta, slope, curvature)}

    def derivatives(self, counts: csc_matrix, log_expression: Floats, linear: Mapping[str, Floats]) -> Derivatives:
        """By a kernel."""
        # numba takes half a second to load, which who only reads a fit need not wait for.
        from sc_ldvae.kernels import dispersed_derivatives

        theta = self.theta(linear).astype(np.float64)
        slope, information = np.empty((2, *log_expression.shape), np.float32)
        of_theta = np.empty((len(theta), 2))
        arrays = counts.indptr.astype(np.int64), counts.indices.astype(np.int64), counts.data.astype(np.float32)
        dispersed_derivatives(*arrays, log_expression, theta, slope, information, of_theta)
        return Derivatives(slope, information, {"log_theta": _stepped(theta, *of_theta.T)})

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``theta m (x + theta) / (theta + m)**2``, in single precision."""
        theta = self.theta(linear).astype(np.float32)
        total = theta + mean
        # In place: what takes most of the time is to go through memory.
        information = counts.toarray() + theta
        information *= mean
        information /= total
        np.divide(theta, total, out=total)
        information *= total
        return information

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


def _stepped(theta: Floats, slope: Floats, curvature: Floats) -> Floats:
    """Log theta after a step of Newton's, from the derivatives of the log-likelihood by theta."""
    log_theta = np.log(theta)
    # By log theta, with its prior.
    first, second = theta * slope - log_theta, theta * slope + theta**2 * curvature - 1
    step = np.clip(first / np.maximum(-second, 1), -_LONGEST, _LONGEST)
    return np.clip(log_theta + step, -LARGEST_LOG_THETA, LARGEST_LOG_THETA)


def log_theta_by_moments(counts: csr_matrix, library: Floats) -> NDArray[np.float64]:
    """Log inverse dispersion of each gene, n_genes, from its variance beyond Poisson at its mean proportion."""
    relative = library / library.mean()
    mean = np.asarray(counts.mean(0)).ravel()
    mean_square = np.asarray(counts.multiply(counts).mean(0)).ravel()
    explained = mean**2 * np.mean(relative**2)
    # Bounds: a start far outside of them has no gradient to come back with.
    theta = explained / np.maximum(mean_square - mean - explained, explained / 100 + np.finfo(float).tiny)
    return np.log(np.clip(theta, 0.1, 100))
