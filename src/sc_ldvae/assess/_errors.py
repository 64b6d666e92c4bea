"""How far the loadings may be off: the observed Fisher information of each gene's counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import block_diag

from sc_ldvae.kernels import matmul
from sc_ldvae.record import unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.record import Decoder

_CHUNK = 256
# Smallest information: as if a loading were known to be within 10 of zero. Genes without counts have no other.
_LEAST = 0.01
# Of the square of a prior's scale; steps in which it is found, and how near.
_LEAST_SCALE, _STEPS, _CLOSE = 1e-8, 100, 1e-3


class Errors(NamedTuple):
    """How far the estimates of each gene may be off."""

    loadings: NDArray[np.float64]
    """Covariance of the loadings, n_genes x n_factors x n_factors."""
    covariate_effects: NDArray[np.float64]
    """Standard errors, n_genes x columns of the covariates."""


def errors(
    decoder: Decoder,
    cells: Decoded,
    factors: Positions,
    level_blocks: list[slice],
    *,
    composition: bool,
    shrunken: bool,
    n_training: int | None = None,
) -> Errors:
    """Of each gene's loadings on some `factors`, and of its covariate effects.

    Given the posterior means of the cells, each gene is a regression of its counts on them, and the inverse of minus
    the second derivative of its log-likelihood is the covariance of its coefficients. The intercept and the effects of
    covariates are among them, so what they take from the loadings is accounted for. Dispersion, zero inflation,
    background and library are taken as known. Loadings have no prior at the end of a fit.

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
    shrunken
        Whether covariate effects had the adaptive prior. Its scale is where it maximises the evidence, so the effects
        and their information tell it.
    n_training
        How many cells `cells` stand for: the information of all is taken for as many times theirs.
    """
    n_factors = len(factors)
    inputs = _inputs(cells, factors, level_blocks, composition=composition)
    rows, columns = np.tril_indices(inputs.shape[1])
    n_genes = len(decoder.log_proportion.intercept)
    triangles = np.zeros((len(rows), n_genes))
    start = 0
    for counts, chunk in cells.chunks(_CHUNK):
        information = decoder.likelihood.information(counts, chunk.expression(decoder), chunk.linear(decoder))
        x = inputs[start : start + len(information)]
        triangles += matmul((x[:, rows] * x[:, columns]).T, information)
        start += len(information)
    if n_training is not None:
        triangles *= n_training / start
    if not np.isfinite(triangles).all():
        msg = "The information of the counts about the loadings is not finite: the fit diverged. Try a smaller lr."
        raise FloatingPointError(msg)
    values, vectors = np.linalg.eigh(unpacked(triangles.T, inputs.shape[1]))
    scaled = vectors / np.sqrt(np.maximum(values, _LEAST))[:, None]
    of_factors, of_covariates = scaled[:, :n_factors], scaled[:, n_factors : inputs.shape[1] - (not composition)]
    effects = decoder.log_proportion.covariate_effects.astype(np.float64)
    of_effects = _of_effects(_squared(of_covariates), effects, level_blocks, shrunken=shrunken)
    return Errors(_squared(of_factors), of_effects)


def _squared(roots: NDArray[np.float64]) -> NDArray[np.float64]:
    square: NDArray[np.float64] = roots @ roots.transpose(0, 2, 1)
    return square


def _of_effects(
    covariance: NDArray[np.float64], effects: NDArray[np.float64], level_blocks: list[slice], *, shrunken: bool
) -> NDArray[np.float64]:
    """Standard errors of the effects of all levels, n_genes x columns.

    A regression has all but the first, of which this is the covariance. With F from those to all, whose sum is zero,
    the prior ``Normal(0, s^2)`` of each effect adds ``F.T @ F / s^2`` to its inverse, and the evidence is largest where
    ``s^2 = mean(effect^2 + variance)`` over genes and the levels of a category.
    """
    if not effects.shape[1]:
        return np.zeros(effects.shape)
    of_categories = [
        np.vstack([-np.ones(block.stop - block.start - 1), np.eye(block.stop - block.start - 1)])
        for block in level_blocks
    ]
    n_levels = sum(map(len, of_categories))
    numbers = [slice(column, column + 1) for column in range(n_levels, effects.shape[1])]
    to_all = block_diag(*of_categories, *([1.0] for _ in numbers))
    variances = np.einsum("ij,gjk,ik->gi", to_all, covariance, to_all)
    if not shrunken:
        return np.sqrt(variances)
    information, precision = np.linalg.inv(covariance), np.zeros(effects.shape[1])
    for _ in range(_STEPS):
        before = precision.copy()
        for own in (*level_blocks, *numbers):
            precision[own] = 1 / np.maximum((effects[:, own] ** 2 + variances[:, own]).mean(), _LEAST_SCALE)
        known = information + (to_all * precision[:, None]).T @ to_all
        variances = np.einsum("ij,gjk,ik->gi", to_all, np.linalg.inv(known), to_all)
        if np.allclose(precision, before, rtol=_CLOSE):
            break
    return np.sqrt(variances)


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
