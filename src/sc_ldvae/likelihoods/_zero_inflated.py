"""Negative binomial counts with extra zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood, Part
from sc_ldvae.likelihoods._negative_binomial import THETA, NegativeBinomial
from sc_ldvae.likelihoods._spread import spread_deviances, spread_totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

# Few extra zeros to start with; more in what is simulated.
_START, _SIMULATED = -3.0, -2.0
# Neither no nor all zeros are extra ones for certain.
_LEAST_SHARE = 1e-3

INFLATION = Part("zero_inflation", "zero_inflation", lambda log_odds: 1 - expit(-log_odds), depends_on="factors")


class ZeroInflated(NegativeBinomial):
    """A negative binomial count, or a zero in its place; `mean` is that of the negative binomial."""

    name = "zinb"
    parts = (THETA, INFLATION)

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:
        """Dispersions at their moments, few extra zeros."""
        return super().start(counts, library) | {"zero_inflation": np.full(counts.shape[1], _START)}

    # The kernel of the negative binomial is not its own.
    derivatives = Likelihood.derivatives

    def expected_totals(self, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Without the extra zeros."""
        return spread_totals(contrasts, expit(-linear["zero_inflation"]), has_library=True, dispersed=True)

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Of the expected counts, extra zeros among them, under the negative binomial."""
        return spread_deviances(counts, contrasts, self.theta(linear), expit(-linear["zero_inflation"]))

    def slope(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """That of the negative binomial, times the probability that a zero is not an extra one."""
        slope = super().slope(counts, mean, linear)
        return slope * self._counted(counts, mean, linear)

    def updated(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> dict[str, Floats]:
        """Of extra zeros the expected share given the counts, as in a step of EM; dispersions stay as they are."""
        extra = 1 - self._counted(counts, mean, linear).mean(0, dtype=np.float64)
        return dict(linear) | {"zero_inflation": logit(np.clip(extra, _LEAST_SHARE, 1 - _LEAST_SHARE))}

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """That of the negative binomial where a count is not zero."""
        information, nonzeros = self._at_zeros(mean, linear), counts.nonzero()
        information[nonzeros] = super().information(counts, mean, linear)[nonzeros]
        return information

    def draw(
        self, mean: Floats, natural: Mapping[str, Floats], streams: Sequence[np.random.Generator]
    ) -> NDArray[np.int64]:
        """Negative binomial counts, some of them replaced by zero."""
        counts = super().draw(mean, natural, streams)
        counts[streams[2].random(counts.shape) < natural["zero_inflation"]] = 0
        return counts

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:
        """One probability for all genes."""
        return super().simulated(n_genes, rng) | {"zero_inflation": expit(_SIMULATED)}

    def _at_zeros(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """Of a count of zero that may be an extra one.

        With q = P(not an extra zero), the negative binomial's p(0) and ``r = q p(0) / (1 - q + q p(0))``, minus the
        second derivative of ``log(1 - q + q p(0))`` is ``r (s theta / (theta + m) - (1 - r) s**2)``, where
        ``s = theta m / (theta + m)``.
        """
        theta = self.theta(linear).astype(np.float32)
        slope, counted = theta * mean / (theta + mean), self._zeros_counted(mean, linear)
        return counted * (slope * theta / (theta + mean) - (1 - counted) * slope**2)

    def _counted(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """Probability that each count is the negative binomial's own."""
        return np.where(counts.toarray() > 0, np.float32(1), self._zeros_counted(mean, linear))

    def _zeros_counted(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """The same where each is zero."""
        theta = self.theta(linear).astype(np.float32)
        not_inflated = expit(-linear["zero_inflation"]).astype(np.float32)
        counted = not_inflated * np.exp(-theta * np.log1p(mean / theta))
        return counted / (1 - not_inflated + counted)
