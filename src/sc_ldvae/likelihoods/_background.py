"""Negative binomial counts above a background."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood, Part
from sc_ldvae.likelihoods._negative_binomial import THETA, NegativeBinomial
from sc_ldvae.likelihoods._spread import spread_deviances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

# Where the background starts: as if so many of the cells had nothing else, of those with counts.
_QUANTILE = 0.1
# Of a mean so much is expression at least: what is none has no logarithm.
_LEAST_SHARE = 0.01
# What simulated proteins have: the median background and the spread of its log.
_SIMULATED_BACKGROUND, _SIMULATED_SD = 4.0, 0.5


def _background(log_background: Floats) -> Floats:
    return np.exp(np.clip(log_background, -LARGEST_LOG_THETA, LARGEST_LOG_THETA))


BACKGROUND = Part("log_background", "background", _background, depends_on="gene")


class WithBackground(NegativeBinomial):
    """Surface proteins: a foreground that factors explain, and a background of antibodies that are there in any case.

    With foreground f, the expression, and background b the mean is ``m = f + b``. Totals of proteins are biology: there
    is no library.
    """

    name = "nb_background"
    parts: ClassVar[tuple[Part, ...]] = (THETA, BACKGROUND)
    has_library = False

    def mean(self, expression: Floats, natural: Mapping[str, Floats]) -> Floats:
        """Foreground and background."""
        return expression + natural["background"]

    def expression(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """What is beyond the background."""
        return np.maximum(mean - _background(linear["log_background"]), _LEAST_SHARE * mean)

    def proportions(self, totals: Floats, n_cells: int) -> Floats:
        """Without a library, mean counts in place of proportions."""
        return (totals + 0.5) / n_cells

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:
        """Dispersions at their moments, backgrounds at a low quantile of the counts."""
        of_genes = counts.tocsc()
        nonzeros = np.split(of_genes.data, of_genes.indptr[1:-1])
        low = [np.quantile(own, _QUANTILE) if len(own) else 1.0 for own in nonzeros]
        return super().start(counts, library) | {"log_background": np.log(low)}

    # The kernel of the negative binomial is not its own.
    derivatives = Likelihood.derivatives

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Of the negative binomial, whose null has one mean for all cells."""
        return spread_deviances(
            counts, contrasts, self.theta(linear), None, background=_background(linear["log_background"])
        )

    def slope(self, counts: csr_matrix, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """The slope by the log mean, times the share of the foreground in it."""
        mean = expression + _background(linear["log_background"]).astype(np.float32)
        return expression / mean * super().slope(counts, mean, linear)

    def updated(self, counts: csr_matrix, expression: Floats, linear: Mapping[str, Floats]) -> dict[str, Floats]:
        """Dispersions; backgrounds stay where they are."""
        return super().updated(counts, expression + _background(linear["log_background"]).astype(np.float32), linear)

    def information(self, counts: csr_matrix, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``s**2 I - s (1 - s) d``, where s is the share of the foreground in the mean.

        I is the information about the log mean, and ``d = theta (x - m) / (theta + m)`` the slope by it.
        """
        mean = expression + _background(linear["log_background"]).astype(np.float32)
        share, slope = expression / mean, super().slope(counts, mean, linear)
        return share * (share * super().information(counts, mean, linear) - (1 - share) * slope)

    def expected_information(self, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """``s**2 m / (1 + m / theta)``."""
        mean = expression + _background(linear["log_background"])
        return (expression / mean) ** 2 * super().expected_information(mean, linear)

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Log normal dispersions and backgrounds."""
        backgrounds = _SIMULATED_BACKGROUND * np.exp(rng.normal(0, _SIMULATED_SD, n_genes))
        return super().simulated(n_genes, rng) | {"background": backgrounds}
