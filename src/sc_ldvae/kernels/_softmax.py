"""The softmax of one cell's log proportions, and the way back through it.

Functions of rows overwrite row buffers, one value per gene. Loops over genes write two buffers at most: with more, the
compiler gives up proving that they do not overlap, and the vector instructions are gone.
"""

from __future__ import annotations

from sc_ldvae.kernels._jit import exp, log1p, part_of_kernel
from sc_ldvae.kernels._maximum import maximum


@part_of_kernel
def softmax(eta, chosen, proportions, log_proportions):
    """Fill the proportions, and their logs at the `chosen` genes alone."""
    largest, total, one = maximum(eta), eta.dtype.type(0), eta.dtype.type(1)
    for g in range(len(eta)):
        proportions[g] = exp(eta[g] - largest)
        total += proportions[g]
    inverse, log_sum = one / total, largest + log1p(total - one)
    for g in range(len(eta)):
        proportions[g] *= inverse
    for i in range(len(chosen)):
        log_proportions[i] = eta[chosen[i]] - log_sum


@part_of_kernel
def through_softmax(d_mean, proportions, factor):
    """Turn the log means' gradient d into `factor` times that of the softmax's inputs; return that of the library.

    With ``log mean_g = log l + eta_g - log sum_h exp(eta_h)``, the gradient by eta_g is ``d_g - rho_g sum_h d_h``, and
    that by log l is ``sum_h d_h``.
    """
    total = d_mean.dtype.type(0)
    for g in range(len(d_mean)):
        total += d_mean[g]
    for g in range(len(d_mean)):
        d_mean[g] = factor * (d_mean[g] - total * proportions[g])
    return factor * total
