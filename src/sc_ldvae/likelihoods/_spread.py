"""Deviances and expected counts of cells under counts that spread about a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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

    out = np.empty((len(contrasts.eta), 1 + len(contrasts.without)))
    library, null, eta, centred, loadings, without, offsets = contrasts
    deviances(
        counts.indptr,
        counts.indices,
        counts.data,
        _single(library),
        _single(null),
        _single(eta),
        _single(centred),
        _single(loadings),
        without,
        _single(offsets),
        None if theta is None else _single(theta),
        None if not_inflated is None else _single(not_inflated),
        None if background is None else _single(background),
        thresholded,
        out,
    )
    return out


def spread_totals(contrasts: Contrasts, not_inflated: Floats | None, *, has_library: bool, thresholded: bool) -> Floats:
    """Expected counts of each gene without each set, summed over cells, n_sets x n_genes.

    `not_inflated` as for `spread_deviances`; if `thresholded`, expected numbers of cells with any count.
    """
    from sc_ldvae.kernels import expected_totals

    library, _, eta, centred, loadings, without, _ = contrasts
    out = np.zeros((len(without), eta.shape[1]))
    expected_totals(
        _single(library),
        _single(eta),
        _single(centred),
        _single(loadings),
        without,
        None if not_inflated is None else _single(not_inflated),
        has_library,
        thresholded,
        out,
    )
    return out


def _single(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
