"""Deviances and expected counts of cells under counts that spread about a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    spread = _Spread.of(theta, not_inflated, background, thresholded=thresholded)
    of_means = np.empty((len(contrasts.eta), 1 + len(contrasts.without)), np.float32)
    _run(counts, contrasts, spread, np.empty((0, *contrasts.offsets.shape), np.float32), of_means)
    saturated = np.zeros(len(of_means)) if thresholded else _saturated(counts, spread.theta)
    return 2 * (of_means + saturated[:, None])


def spread_totals(
    contrasts: Contrasts,
    not_inflated: Floats | None,
    *,
    has_library: bool,
    dispersed: bool = False,
    thresholded: bool = False,
) -> Floats:
    """Expected counts of each gene without each set, summed over cells, n_sets x n_genes.

    `not_inflated` as for `spread_deviances`; if `thresholded`, expected numbers of cells with any count. `dispersed`
    says whether deviances are those of negative binomials.
    """
    n_cells, n_genes = contrasts.eta.shape
    # What has no part in totals has the type that it has in deviances: else the kernel would be compiled once more.
    spread = _Spread.of(
        np.ones(n_genes) if dispersed else None,
        not_inflated,
        None if has_library else np.zeros(n_genes),
        thresholded=thresholded,
    )
    totals = np.empty((_slices(contrasts), len(contrasts.without), n_genes), np.float32)
    no_counts, no_cells = csr_matrix((n_cells, n_genes), dtype=np.float32), np.empty((0, 1), np.float32)
    _run(no_counts, contrasts, spread, totals, no_cells)
    summed: Floats = totals.sum(0, dtype=np.float64)
    return summed


class _Spread(NamedTuple):
    """The distribution of counts beside their means, as the kernel takes it; what is None is not there."""

    theta: NDArray[np.float32] | None
    inverse_theta: NDArray[np.float32] | None
    not_inflated: NDArray[np.float32] | None
    background: NDArray[np.float32] | None
    thresholded: bool | None

    @classmethod
    def of(
        cls, theta: Floats | None, not_inflated: Floats | None, background: Floats | None, *, thresholded: bool
    ) -> _Spread:
        return cls(
            None if theta is None else _single(np.atleast_2d(theta)),
            None if theta is None else _single(1 / np.atleast_2d(theta)),
            None if not_inflated is None else _single(not_inflated),
            None if background is None else _single(background),
            thresholded if theta is None else None,
        )


def _run(counts: csr_matrix, contrasts: Contrasts, spread: _Spread, totals: Floats, out: Floats) -> None:
    # numba takes half a second to load, which who only reads a fit need not wait for.
    from sc_ldvae.kernels import deviances, own_threads

    n_latent, n_genes = contrasts.loadings.shape
    # Of the null, and of the decoder without the first set, nothing is left out yet.
    there = np.vstack([np.ones((2, n_latent), np.float32), 1 - contrasts.without])
    with own_threads():
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
            _single(np.diff(there, axis=0)),
            _single(np.vstack([np.zeros(n_genes), contrasts.offsets])),
            *spread,
            totals,
            out,
        )


def _slices(contrasts: Contrasts) -> int:
    from sc_ldvae.kernels import n_slices

    return n_slices(contrasts.eta.size * len(contrasts.without))


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


def _single(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
