"""Explained deviance: how much of the counts' variation a fit, and each of its factors, accounts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import xlogy

from sc_ldvae.record import softmax_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae.record import Decoder

    Floats = NDArray[np.floating[Any]]

_CHUNK = 256


@dataclass(frozen=True)
class Decoded:
    """Cells as the decoder sees them; every array has one row per cell."""

    counts: csr_matrix
    latent: Floats
    covariates: Floats
    library: Floats
    theta_group: NDArray[np.int64]

    def rows(self, cells: NDArray[np.intp] | slice) -> Decoded:
        """Some of the cells."""
        return Decoded(
            self.counts[cells],
            self.latent[cells],
            self.covariates[cells],
            self.library[cells],
            self.theta_group[cells],
        )


def explained_deviance(
    decoder: Decoder, cells: Decoded, null_proportions: Floats, latent_mean: Floats
) -> tuple[float, Floats]:
    """Share of the null's deviance that the fit, and each factor on top of the others, explains.

    The deviance is that of the expected counts under the fitted dispersion (Poisson: none). The null gives every cell
    its library times `null_proportions`. A factor's share is the deviance that returns when it is set to its mean.

    Returns
    -------
    The total, ``1 - deviance(fit) / deviance(null)``, and each factor's share, n_latent.
    """
    n_latent = cells.latent.shape[1]
    deviances = np.zeros(2 + n_latent)
    for start in range(0, cells.counts.shape[0], _CHUNK):
        deviances += _chunk_deviances(decoder, cells.rows(slice(start, start + _CHUNK)), null_proportions, latent_mean)
    null, fit, without = deviances[0], deviances[1], deviances[2:]
    return float(1 - fit / null), (without - fit) / null


def _chunk_deviances(decoder: Decoder, cells: Decoded, null_proportions: Floats, latent_mean: Floats) -> Floats:
    x = cells.counts.toarray().astype(np.float64)
    theta = decoder.theta(cells.latent, cells.covariates, cells.theta_group)
    not_inflated = decoder.not_inflated(cells.latent, cells.covariates)
    eta = decoder.log_proportion(cells.latent, cells.covariates)

    def deviance_of(eta: Floats) -> float:
        return deviance(x, softmax_mean(eta, cells.library) * not_inflated, theta)

    centred = cells.latent - latent_mean
    loadings = decoder.log_proportion.loadings
    without = [deviance_of(eta - np.outer(centred[:, k], loadings[:, k])) for k in range(loadings.shape[1])]
    null = deviance(x, np.outer(cells.library, null_proportions), theta)
    return np.array([null, deviance_of(eta), *without])


def deviance(x: Floats, mean: Floats, theta: Floats | None) -> float:
    """Deviance of counts: twice the log-likelihood that `mean` falls short of ``mean = x``, summed.

    Negative binomial with inverse dispersion `theta`, or Poisson where it is None.
    """
    if theta is None:
        return float(2 * (xlogy(x, x / mean) - (x - mean)).sum())
    return float(2 * (xlogy(x, x / mean) - (x + theta) * np.log((x + theta) / (mean + theta))).sum())
