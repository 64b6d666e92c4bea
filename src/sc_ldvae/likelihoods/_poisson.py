"""Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats


class Poisson(Likelihood):
    """Variance equal to the mean."""

    name = "poisson"

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing to start."""
        return {}

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """Twice ``x log(x / m) - x + m``, summed over genes."""
        return spread_deviances(counts, contrasts, None, None)

    def slope(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """``x - m``."""
        return counts.toarray() - mean

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """The mean."""
        return mean

    def expected_information(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """The mean."""
        return mean

    def draw(
        self,
        mean: Floats,
        natural: Mapping[str, Floats],  # noqa: ARG002  it has no parts
        streams: Sequence[np.random.Generator],
    ) -> NDArray[np.int64]:
        """Counts from the second stream, which other likelihoods draw their counts from, too."""
        return streams[1].poisson(mean)

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing beside the mean."""
        return {}


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
    library, null, eta, centred, loadings, without = contrasts
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
        None if theta is None else _single(theta),
        None if not_inflated is None else _single(not_inflated),
        None if background is None else _single(background),
        thresholded,
        out,
    )
    return out


def _single(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
