"""Poisson counts of one cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sc_ldvae.kernels._jit import exp
from sc_ldvae.kernels._row_loss import NOTHING, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class PoissonTerms(NamedTuple):
    """Nothing beside the mean."""

    none: NDArray[np.floating[Any]]
    """Kernels know no empty tuple."""


def terms(_grouped: Sequence[NDArray[np.floating[Any]]]) -> PoissonTerms:
    """For `row_loss`."""
    return PoissonTerms(NOTHING)


@row_of(PoissonTerms)
def _row(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    """Sum of ``x (log rho + log l) - l rho``, whose derivative by the log mean is ``x - l rho``."""
    d_mean = gradients[i]
    library = exp(log_library)
    for g in range(len(proportions)):
        d_mean[g] = -library * proportions[g]
    value = -library
    for j in range(len(genes)):
        d_mean[genes[j]] += counts[j]
        value += counts[j] * (log_proportions[j] + log_library)
    return value
