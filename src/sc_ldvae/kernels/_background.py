"""Negative binomial counts of one cell above a background.

With foreground f, the exponential of the linear map, background b and the mean ``m = f + b``, the likelihood is that of
`_negative_binomial`, and its gradient by log m is shared out:

    d log m / d log f = f / m,      d log m / d log b = b / m.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.kernels._jit import log, part_of_kernel
from sc_ldvae.kernels._link import without_softmax
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
from sc_ldvae.kernels._row_loss import TILE, row_of
from sc_ldvae.kernels._sums import exp_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


@without_softmax
class BackgroundGroupedTheta(NamedTuple):
    """As `GroupedTheta`, and the background of each gene."""

    log_theta: Array
    theta: Array
    rising: Array
    slopes: Array
    background: Array


@without_softmax
class BackgroundCellTheta(NamedTuple):
    """Log inverse dispersions are the second output of the linear maps."""

    background: Array


def terms(grouped: Sequence[Array]) -> BackgroundGroupedTheta | BackgroundCellTheta:
    """For `row_loss`, from log theta by group, if it has one value per group, and log background, 1 x genes."""
    *log_theta, log_background = grouped
    background = np.exp(np.clip(log_background[0], -LARGEST_LOG_THETA, LARGEST_LOG_THETA))
    if not log_theta:
        return BackgroundCellTheta(background)
    return BackgroundGroupedTheta(*GroupedTheta.of(*log_theta), background)


@row_of(BackgroundGroupedTheta)
def _grouped(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    theta, log_theta, background = terms.theta[group], terms.log_theta[group], terms.background
    growth, share, mean = scratch[0], scratch[1], scratch[2]
    d_mean, d_theta, d_background = gradients[i], gradients[TILE + i], gradients[2 * TILE + i]
    one, zero = theta.dtype.type(1), theta.dtype.type(0)
    add_background(proportions, background, genes, mean, log_proportions)
    value = of_zeros(one, mean, theta, growth, share, d_mean, d_theta)
    value += add_counts(zero, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    value += add_tabulated_gammas(genes, counts, terms.rising[group], terms.slopes[group], d_theta)
    value += add_gammas(genes, counts, N_TABULATED, theta, d_theta)
    share_out(proportions, background, mean, d_mean, d_background)
    return value


@row_of(BackgroundCellTheta)
def _of_cell(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    log_theta, background = outputs[1], terms.background
    growth, share, mean, theta = scratch[0], scratch[1], scratch[2], scratch[3]
    d_mean, d_theta, d_background = gradients[i], gradients[TILE + i], gradients[2 * TILE + i]
    one, zero = theta.dtype.type(1), theta.dtype.type(0)
    bound(log_theta)
    exp_of(theta, log_theta)
    add_background(proportions, background, genes, mean, log_proportions)
    value = of_zeros(one, mean, theta, growth, share, d_mean, d_theta)
    value += add_counts(zero, log_proportions, genes, counts, theta, log_theta, growth, share, d_mean, d_theta)
    value += add_gammas(genes, counts, 0, theta, d_theta)
    hold(log_theta, d_theta)
    share_out(proportions, background, mean, d_mean, d_background)
    return value


@part_of_kernel
def add_background(foreground, background, genes, mean, log_mean):
    """Fill the means, and their logs at the nonzeros."""
    for g in range(len(mean)):
        mean[g] = foreground[g] + background[g]
    for i in range(len(genes)):
        log_mean[i] = log(mean[genes[i]])


@part_of_kernel
def share_out(foreground, background, mean, d_mean, d_background):
    """Turn the gradient by log mean into that by log foreground, and fill that by log background."""
    for g in range(len(mean)):
        slope = d_mean[g] / mean[g]
        d_background[g] = slope * background[g]
        d_mean[g] = slope * foreground[g]
