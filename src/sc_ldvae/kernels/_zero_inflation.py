"""Zero-inflated negative binomial counts of one cell.

With the log odds o of an extra zero and the negative binomial's p, ``P(0) = (e^o + p(0)) / (1 + e^o)`` and
``P(x) = p(x) / (1 + e^o)``. A zero is not an extra one with probability ``q = p(0) / (e^o + p(0))``: gradients of the
negative binomial's parameters are q times those without inflation, and that by o is ``1 - q - e^o / (1 + e^o)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sc_ldvae.kernels._jit import exp, log1p, part_of_kernel
from sc_ldvae.kernels._negative_binomial import (
    GroupedTheta,
    add_counts,
    add_gammas,
    add_tabulated_gammas,
    bound,
    hold,
    of_zeros,
)
from sc_ldvae.kernels._rising import N_TABULATED
from sc_ldvae.kernels._row_loss import NOTHING, TILE, row_of
from sc_ldvae.kernels._sums import exp_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


class InflatedGroupedTheta(NamedTuple):
    """As `GroupedTheta`; the log odds of an extra zero are the second output of the linear maps."""

    log_theta: Array
    theta: Array
    rising: Array
    slopes: Array

    @classmethod
    def of(cls, log_theta: Array) -> InflatedGroupedTheta:
        """With their tables."""
        return cls(*GroupedTheta.of(log_theta))


class InflatedCellTheta(NamedTuple):
    """Log inverse dispersions and the log odds of an extra zero are the second and third output."""

    none: Array
    """Kernels know no empty tuple."""


def terms(grouped: Sequence[Array]) -> InflatedGroupedTheta | InflatedCellTheta:
    """For `row_loss`, from log theta by group if it has one value per group."""
    return InflatedGroupedTheta.of(*grouped) if grouped else InflatedCellTheta(NOTHING)


@row_of(InflatedGroupedTheta)
def _grouped(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    theta, log_theta, logits = terms.theta[group], terms.log_theta[group], outputs[1]
    growth, share, kept = scratch[0], scratch[1], scratch[2]
    # By mean, by the linear map, then by what has one value per group.
    d_mean, d_logits, d_theta = gradients[i], gradients[TILE + i], gradients[2 * TILE + i]
    value = of_zeros(exp(log_library), proportions, theta, growth, share, d_mean, d_theta)
    value += inflate_zeros(logits, theta, growth, kept, d_mean, d_theta, d_logits)
    value += deflate_nonzeros(genes, logits, theta, growth, share, kept, d_mean, d_theta, d_logits)
    value += add_counts(log_library, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    # Parked in memory, which `d_theta` might be: so what is added stays in one order on every processor.
    kept[0] = value + add_tabulated_gammas(genes, counts, terms.rising[group], terms.slopes[group], d_theta)
    gammas = add_gammas(genes, counts, N_TABULATED, theta, d_theta)
    return kept[0] + gammas


@row_of(InflatedCellTheta)
def _of_cell(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    log_theta, logits = outputs[1], outputs[2]
    growth, share, kept, theta = scratch[0], scratch[1], scratch[2], scratch[3]
    d_mean, d_theta, d_logits = gradients[i], gradients[TILE + i], gradients[2 * TILE + i]
    bound(log_theta)
    exp_of(theta, log_theta)
    value = of_zeros(exp(log_library), proportions, theta, growth, share, d_mean, d_theta)
    value += inflate_zeros(logits, theta, growth, kept, d_mean, d_theta, d_logits)
    value += deflate_nonzeros(genes, logits, theta, growth, share, kept, d_mean, d_theta, d_logits)
    value += add_counts(log_library, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    kept[0] = value
    gammas = add_gammas(genes, counts, 0, theta, d_theta)
    hold(log_theta, d_theta)
    return kept[0] + gammas


@part_of_kernel
def inflate_zeros(logits, theta, growth, not_inflated, d_mean, d_theta, d_logits):
    """What zero inflation adds to `of_zeros`; changes its gradients and fills that of the log odds."""
    value, one, zero = theta.dtype.type(0), theta.dtype.type(1), theta.dtype.type(0)
    for g in range(len(theta)):
        log_nb = -theta[g] * growth[g]
        excess = log_nb - logits[g]
        small, small_prior = exp(-abs(excess)), exp(-abs(logits[g]))
        not_inflated[g] = (one if excess > zero else small) / (one + small)
        d_logits[g] = (one if logits[g] < zero else small_prior) / (one + small_prior) - not_inflated[g]
        value += max(excess, zero) + log1p(small) - max(-logits[g], zero) - log1p(small_prior) - log_nb
    for g in range(len(theta)):
        d_mean[g] *= not_inflated[g]
        d_theta[g] *= not_inflated[g]
    return value


@part_of_kernel
def deflate_nonzeros(genes, logits, theta, growth, share, not_inflated, d_mean, d_theta, d_logits):
    """Take back what `inflate_zeros` did where counts are not zero; what remains is the log odds of no inflation."""
    value, zero, one = theta.dtype.type(0), theta.dtype.type(0), theta.dtype.type(1)
    for g in genes:
        log_nb = -theta[g] * growth[g]
        excess = log_nb - logits[g]
        value += log_nb - logits[g] - max(excess, zero) - log1p(exp(-abs(excess)))
        d_mean[g] = -theta[g] * share[g]
        d_theta[g] = theta[g] * (share[g] - growth[g])
        d_logits[g] += not_inflated[g] - one
    return value
