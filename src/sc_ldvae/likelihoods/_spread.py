"""Deviances and expected counts of cells under counts that spread about a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats
    from sc_ldvae.likelihoods._likelihood import Contrasts


def spread_deviances(
    counts: csr_matrix,
    contrasts: Contrasts,
    theta: Floats | None,
    not_inflated: Floats | None,
    *,
    background: Floats | None = None,
    thresholded: bool = False,
) -> Floats:
    """Deviances under a negative binomial with these inverse dispersions (None: Poisson).

    `not_inflated` is the share of the counts that zero inflation leaves (None: all); the null knows of none, nor of the
    `background` of each gene (None: none, and proportions are a softmax). With `thresholded` only is seen whether
    Poisson counts are above zero.
    """
    # numba takes half a second to load, which who only reads a fit need not wait for.
    from sc_ldvae.kernels import deviances

    theta = None if theta is None else _single(np.atleast_2d(theta))
    of_means = np.empty((len(contrasts.eta), 1 + len(contrasts.without)), np.float32)
    deviances(
        _slices(contrasts),
        counts.indptr.astype(np.int64),
        counts.indices.astype(np.int32, copy=False),
        _single(counts.data),
        _single(contrasts.library),
        _single(contrasts.null),
        _single(contrasts.eta),
        _single(contrasts.centred),
        _single(contrasts.loadings),
        _changes(contrasts),
        _single(contrasts.offsets),
        theta,
        None if not_inflated is None else _single(not_inflated),
        None if background is None else _single(background),
        thresholded,
        of_means,
    )
    saturated = np.zeros(len(of_means)) if thresholded else _saturated(counts, theta)
    return 2 * (of_means + saturated[:, None])


def spread_totals(contrasts: Contrasts, not_inflated: Floats | None, *, has_library: bool, thresholded: bool) -> Floats:
    """Expected counts of each gene without each set, summed over cells, n_sets x n_genes.

    `not_inflated` as for `spread_deviances`; if `thresholded`, expected numbers of cells with any count.
    """
    from sc_ldvae.kernels import expected_totals

    slices = _slices(contrasts)
    totals = np.empty((slices, len(contrasts.without), contrasts.eta.shape[1]), np.float32)
    expected_totals(
        slices,
        _single(contrasts.library),
        _single(contrasts.eta),
        _single(contrasts.centred),
        _single(contrasts.loadings),
        _changes(contrasts),
        None if not_inflated is None else _single(not_inflated),
        has_library,
        thresholded,
        totals,
    )
    summed: Floats = totals.sum(0, dtype=np.float64)
    return summed


def _saturated(counts: csr_matrix, theta: Floats | None) -> NDArray[np.float64]:
    """What no mean is in, of half of each cell's deviance, n_cells.

    ``x log x - x`` for Poisson, or ``x log(x / (x + t)) - t log(1 + x / t)``.
    """
    cells, x = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), counts.data.astype(np.float64)
    if theta is None:
        terms = x * np.log(x) - x
    else:
        t = theta[cells if len(theta) > 1 else 0, counts.indices].astype(np.float64)
        terms = x * np.log(x / (x + t)) - t * np.log1p(x / t)
    return np.bincount(cells, terms, counts.shape[0])


def _changes(contrasts: Contrasts) -> Floats:
    """How often each factor is added from the decoder, or from one set, to the next, n_sets x n_latent."""
    there = 1 - contrasts.without.astype(np.float32)
    return np.diff(there, axis=0, prepend=np.ones((1, there.shape[1]), np.float32))


def _slices(contrasts: Contrasts) -> int:
    from sc_ldvae.kernels import n_slices

    return n_slices(contrasts.eta.size * len(contrasts.without))


def _single(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
