"""Explained deviance: how much of the counts' variation a fit, and each of its factors, accounts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.nn._fused import deviances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Mask
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
    without = np.vstack([np.zeros(n_latent, dtype=bool), np.eye(n_latent, dtype=bool)])
    sums = np.zeros(1 + len(without))
    for part in deviances_without(decoder, cells, without, null_proportions, latent_mean):
        sums += part.sum(0)
    null, fit, others = sums[0], sums[1], sums[2:]
    return float(1 - fit / null), (others - fit) / null


def deviances_without(
    decoder: Decoder, cells: Decoded, without: Mask, null_proportions: Floats, latent_mean: Floats
) -> Iterator[Floats]:
    """Deviance of each cell under the null, and under the decoder without each set of factors, some cells at a time.

    Parameters
    ----------
    decoder, cells
        Of the same frame.
    without
        Factors that are set to their mean, n_sets x n_latent.
    null_proportions, latent_mean
        n_genes and n_latent.

    Yields
    ------
    Cells x (1 + n_sets).
    """
    for start in range(0, cells.counts.shape[0], _CHUNK):
        yield _chunk_deviances(
            decoder, cells.rows(slice(start, start + _CHUNK)), without, null_proportions, latent_mean
        )


def _chunk_deviances(
    decoder: Decoder, cells: Decoded, without: Mask, null_proportions: Floats, latent_mean: Floats
) -> Floats:
    eta = decoder.log_proportion(cells.latent, cells.covariates)
    theta = decoder.theta(cells.latent, cells.covariates, cells.theta_group)
    not_inflated = decoder.not_inflated(cells.latent, cells.covariates)
    out = np.empty((len(eta), 1 + len(without)))
    deviances(
        cells.counts.indptr,
        cells.counts.indices,
        cells.counts.data,
        _single(cells.library),
        _single(np.log(null_proportions)),
        _single(eta),
        _single(cells.latent - latent_mean),
        _single(decoder.log_proportion.loadings.T),
        without,
        None if theta is None else _single(theta),
        _single(not_inflated) if isinstance(not_inflated, np.ndarray) else None,
        out,
    )
    return out


def _single(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
