"""Negative binomial counts of one cell.

What is said of zero counts is computed for all genes in vector instructions, then corrected at the nonzeros. With mean
m = l rho, inverse dispersion theta, ``growth = log(1 + m / theta)`` and ``share = m / (m + theta)``,

    log p(0) = -theta growth,
    log p(x) = log p(0) + log(Gamma(x + theta) / (Gamma(theta) x!)) + x (log(m / theta) - growth),

    d log p(x) / d log m     = -theta share + x (1 - share)
    d log p(x) / d log theta = theta (share - growth) - x (1 - share) + theta (psi(x + theta) - psi(theta))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.kernels._jit import exp, log1p, part_of_kernel
from sc_ldvae.kernels._rising import N_TABULATED, empty_tables, log_rising, tabulate_rising
from sc_ldvae.kernels._row_loss import NOTHING, TILE, row_of
from sc_ldvae.kernels._sums import exp_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


class GroupedTheta(NamedTuple):
    """Inverse dispersions, groups of cells x genes, and their tables (`tabulate_rising`), groups x counts x genes."""

    log_theta: Array
    theta: Array
    rising: Array
    slopes: Array

    @classmethod
    def of(cls, log_theta: Array) -> GroupedTheta:
        """With their tables."""
        log_theta = np.clip(log_theta, -LARGEST_LOG_THETA, LARGEST_LOG_THETA)
        theta = np.exp(log_theta)
        tables = empty_tables(theta)
        tabulate_rising(theta, log_theta, *tables)
        return cls(log_theta, theta, *tables)


class CellTheta(NamedTuple):
    """Log inverse dispersions are the second output of the linear maps."""

    none: Array
    """Kernels know no empty tuple."""


def terms(grouped: Sequence[Array]) -> GroupedTheta | CellTheta:
    """For `row_loss`, from log theta by group if it has one value per group."""
    return GroupedTheta.of(*grouped) if grouped else CellTheta(NOTHING)


@row_of(GroupedTheta)
def _grouped(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    theta, log_theta, d_mean, d_theta = terms.theta[group], terms.log_theta[group], gradients[i], gradients[TILE + i]
    growth, share = scratch[0], scratch[1]
    value = of_zeros(exp(log_library), proportions, theta, growth, share, d_mean, d_theta)
    value += add_counts(log_library, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    tabulated = add_tabulated_gammas(genes, counts, terms.rising[group], terms.slopes[group], d_theta)
    return value + (tabulated + add_gammas(genes, counts, N_TABULATED, theta, d_theta))


@row_of(CellTheta)
def _of_cell(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    log_theta, growth, share, theta = outputs[1], scratch[0], scratch[1], scratch[2]
    d_mean, d_theta = gradients[i], gradients[TILE + i]
    bound(log_theta)
    exp_of(theta, log_theta)
    value = of_zeros(exp(log_library), proportions, theta, growth, share, d_mean, d_theta)
    value += add_counts(log_library, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    value += add_gammas(genes, counts, 0, theta, d_theta)
    hold(log_theta, d_theta)
    return value


@part_of_kernel
def bound(log_theta):
    """Keep log inverse dispersions where neither they nor their products overflow."""
    largest = log_theta.dtype.type(LARGEST_LOG_THETA)
    for g in range(len(log_theta)):
        log_theta[g] = min(max(log_theta[g], -largest), largest)


@part_of_kernel
def hold(log_theta, d_theta):
    """No gradient where a bound holds."""
    largest, zero = log_theta.dtype.type(LARGEST_LOG_THETA), d_theta.dtype.type(0)
    for g in range(len(log_theta)):
        if abs(log_theta[g]) >= largest:
            d_theta[g] = zero


@part_of_kernel
def of_zeros(library, proportions, theta, growth, share, d_mean, d_theta):
    """Log-likelihood as if all counts were zero, and its gradients with respect to log mean and log theta.

    Fills log(1 + mean / theta) (`growth`) and mean / (mean + theta) (`share`), too.
    """
    value, one = theta.dtype.type(0), theta.dtype.type(1)
    for g in range(len(theta)):
        ratio = library * proportions[g] / theta[g]
        growth[g] = log1p(ratio)
        share[g] = ratio / (one + ratio)
    for g in range(len(theta)):
        value -= theta[g] * growth[g]
        d_mean[g] = -theta[g] * share[g]
        d_theta[g] = theta[g] * (share[g] - growth[g])
    return value


@part_of_kernel
def add_counts(log_library, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta):
    """What the nonzero counts add to `of_zeros`, but for the gamma functions."""
    value, one = theta.dtype.type(0), theta.dtype.type(1)
    for i in range(len(genes)):
        g, x = genes[i], counts[i]
        value += x * (log_proportions[i] + log_library - log_theta[g] - growth[g])
        unexplained = x * (one - share[g])
        d_mean[g] += unexplained
        d_theta[g] -= unexplained
    return value


@part_of_kernel
def add_tabulated_gammas(genes, counts, rising, slopes, d_theta):
    """What the gamma functions of the counts in their tables (counts x genes) add."""
    value = d_theta.dtype.type(0)
    for i in range(len(genes)):
        g, x = genes[i], counts[i]
        if x <= N_TABULATED:
            value += rising[int(x) - 1, g]
            d_theta[g] += slopes[int(x) - 1, g]
    return value


@part_of_kernel
def add_gammas(genes, counts, above, theta, d_theta):
    """What the gamma functions of the counts `above` a number add, one by one."""
    value = 0.0
    for i in range(len(genes)):
        if counts[i] > above:
            g = genes[i]
            rise, slope = log_rising(counts[i], theta[g])
            value += rise
            d_theta[g] += slope
    return d_theta.dtype.type(value)
