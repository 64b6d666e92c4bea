"""Whether there is a count at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood
from sc_ldvae.likelihoods._spread import spread_deviances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

# Below, a series is exact to double precision; the least mean, and the largest with an exponential.
_SMALL, _TINY, _LARGEST = 1e-4, 1e-300, 700.0
# Of a gene that all cells have the mean has no bound.
_LARGEST_SHARE = 1 - 1e-6


class Bernoulli(Likelihood):
    """A Poisson count of which only is seen whether it is above zero; `mean` is that of the Poisson."""

    name = "bernoulli"
    thresholded = True

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing to start."""
        return {}

    def proportions(self, totals: Floats, n_cells: int) -> Floats:
        """Of the means with which as many cells are expected to have any."""
        means = -np.log1p(-(totals + 0.5) / (n_cells + 1))
        return means / means.sum()

    def log_mean(self, expected: Floats) -> Floats:
        """Of the Poisson count."""
        return super().log_mean(-np.log1p(-np.minimum(expected, _LARGEST_SHARE)))

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """Minus twice the log-likelihood: that of zeros and ones that are certain is zero."""
        return spread_deviances(counts, contrasts, None, None, thresholded=True)

    def slope(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """Minus the mean m at zeros, and elsewhere ``m / (exp(m) - 1)``."""
        slope = -mean
        rows, columns = counts.nonzero()
        slope[rows, columns] = _over_expm1(mean[rows, columns].astype(np.float64))
        return slope

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """The mean m at zeros, and elsewhere ``m / (exp(m) - 1) (m / (1 - exp(-m)) - 1)``."""
        information = mean.copy()
        rows, columns = counts.nonzero()
        m = mean[rows, columns].astype(np.float64)
        # The difference would lose all digits of a small m.
        slope = np.where(m < _SMALL, m / 2 + m**2 / 12, m / -np.expm1(-np.maximum(m, _SMALL)) - 1)
        information[rows, columns] = _over_expm1(m) * slope
        return information

    def expected_information(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """``m^2 / (exp(m) - 1)``."""
        return mean * _over_expm1(mean.astype(np.float64))

    def information_per_count(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """``m^2 (1 - p) / p^2``, with the share p of cells that have any, which is `mean`, and ``m = -log(1 - p)``."""
        share = np.minimum(mean, _LARGEST_SHARE)
        return (np.log1p(-share) / share) ** 2 * (1 - share)

    def draw(
        self,
        mean: Floats,
        natural: Mapping[str, Floats],  # noqa: ARG002  it has no parts
        streams: Sequence[np.random.Generator],
    ) -> NDArray[np.int64]:
        """Zeros and ones, from the second stream, which other likelihoods draw their counts from, too."""
        return (streams[1].poisson(mean) > 0).astype(np.int64)

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing beside the mean."""
        return {}


def _over_expm1(m: Floats) -> Floats:
    """``m / (exp(m) - 1)``, the share of a mean that another count would still add."""
    return m / np.expm1(np.clip(m, _TINY, _LARGEST))
