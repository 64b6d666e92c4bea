"""How far the loadings may be off: the observed Fisher information of each gene's counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.kernels import matmul

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.record import Decoder

_CHUNK = 256
# Smallest information: as if a loading were known to be within 10 of zero. Genes without counts have no other.
_LEAST = 0.01


def loadings_covariance(
    decoder: Decoder,
    cells: Decoded,
    factors: Positions,
    level_blocks: list[slice],
    *,
    composition: bool,
    n_training: int | None = None,
) -> NDArray[np.float64]:
    """Covariance of the estimates of each gene's loadings on some `factors`, n_genes x n_factors x n_factors.

    Given the posterior means of the cells, each gene is a regression of its counts on them, and the inverse of minus
    the second derivative of its log-likelihood is the covariance of its coefficients. The intercept and the effects of
    covariates are among them, so what they take from the loadings is accounted for. Dispersion, zero inflation,
    background and library are taken as known.

    Parameters
    ----------
    decoder
        Canonical.
    cells
        Those that were trained on, or some of them.
    factors
        Positions of the factors that there are.
    level_blocks
        Columns of the covariates that belong to one category each.
    composition
        Whether the factors sum to one ('ln'): then they leave nothing for an intercept to explain.
    n_training
        How many cells `cells` stand for: the information of all is taken for as many times theirs.
    """
    n_factors = len(factors)
    inputs = _inputs(cells, factors, level_blocks, composition=composition)
    rows, columns = np.tril_indices(inputs.shape[1])
    n_genes = len(decoder.log_proportion.intercept)
    triangles = np.zeros((n_genes, len(rows)))
    start = 0
    for counts, chunk in cells.chunks(_CHUNK):
        information = decoder.likelihood.information(counts, chunk.expression(decoder), chunk.linear(decoder))
        x = inputs[start : start + len(information)]
        triangles += matmul(information.T, x[:, rows] * x[:, columns])
        start += len(information)
    if n_training is not None:
        triangles *= n_training / start
    of_genes = np.empty((n_genes, inputs.shape[1], inputs.shape[1]))
    of_genes[:, rows, columns] = of_genes[:, columns, rows] = triangles
    if not np.isfinite(triangles).all():
        msg = "The information of the counts about the loadings is not finite: the fit diverged. Try a smaller lr."
        raise FloatingPointError(msg)
    values, vectors = np.linalg.eigh(of_genes)
    scaled = vectors[:, :n_factors] / np.sqrt(np.maximum(values, _LEAST))[:, None]
    return scaled @ scaled.transpose(0, 2, 1)


def _inputs(cells: Decoded, factors: Positions, level_blocks: list[slice], *, composition: bool) -> NDArray[np.float32]:
    """What a gene's log expression is regressed on, n_obs x columns, without columns that others determine."""
    covariates = cells.covariates.copy()
    # Effects of levels sum to zero. It matters where factors stand for the intercept: else they would be those of cells
    # of the first level.
    for block in level_blocks:
        covariates[:, block] -= covariates[:, [block.start]]
    covariates = np.delete(covariates, [block.start for block in level_blocks], axis=1)
    ones = np.ones((len(cells.latent), 0 if composition else 1))
    return np.hstack([cells.latent[:, factors], covariates, ones]).astype(np.float32)
