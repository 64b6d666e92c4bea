"""Whether each gene, or peak, of one cell has any count.

A Poisson count with mean m = l rho, of which only is seen whether it is above zero:

    log p(0)     = -m                       d log p(0) / d log m     = -m
    log p(x > 0) = log(exp(m) - 1) - m      d log p(x > 0) / d log m = m / (exp(m) - 1)

First all genes are taken for zeros, whose means sum up to the cell's library; then nonzeros are corrected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sc_ldvae.kernels._jit import exp, log, part_of_kernel
from sc_ldvae.kernels._row_loss import NOTHING, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# Below, the differences would lose digits of which the series have all but 1e-11.
_SERIES = 0.25


class BernoulliTerms(NamedTuple):
    """Nothing beside the mean."""

    none: NDArray[np.floating[Any]]
    """Kernels know no empty tuple."""


def terms(_grouped: Sequence[NDArray[np.floating[Any]]]) -> BernoulliTerms:
    """For `row_loss`."""
    return BernoulliTerms(NOTHING)


@row_of(BernoulliTerms)
def _row(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    d_mean = gradients[i]
    library = exp(log_library)
    for g in range(len(proportions)):
        d_mean[g] = -library * proportions[g]
    value = -library
    for j in range(len(genes)):
        log_m = log_proportions[j] + log_library
        m = exp(log_m)
        d_mean[genes[j]] = _m_over_odds(m)
        value += log_odds(m, log_m)
    return value


@part_of_kernel
def log_odds(m, log_m):
    """``log(exp(m) - 1)``, of any count against none."""
    if m < _SERIES:
        square = m * m
        return log_m + m / 2 + square * (1 / 24 - square * (1 / 2880 - square / 181440))
    return m + log(1 - exp(-m))


@part_of_kernel
def _m_over_odds(m):
    """``m / (exp(m) - 1)``."""
    if m < _SERIES:
        square = m * m
        return 1 - m / 2 + square * (1 / 12 - square * (1 / 720 - square / 30240))
    without = exp(-m)
    return m * without / (1 - without)
