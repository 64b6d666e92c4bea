"""Log-likelihood of one cell's counts and its gradients, given the proportions.

Each function overwrites row buffers, one value per gene: what is said of zero counts, computed for all genes in vector
instructions, then corrected at the nonzeros. Loops over genes write two buffers at most: with more, the compiler gives
up proving that they do not overlap, and the vector instructions are gone.
"""

from __future__ import annotations

from sc_ldvae.nn._fused._jit import exp, log1p, part_of_kernel
from sc_ldvae.nn._fused._rising import N_TABULATED, log_rising
from sc_ldvae.nn._fused._sums import maximum


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
    """Turn the log means' gradient into `factor` times that of the softmax's inputs; return that of the library."""
    total = d_mean.dtype.type(0)
    for g in range(len(d_mean)):
        total += d_mean[g]
    for g in range(len(d_mean)):
        d_mean[g] = factor * (d_mean[g] - total * proportions[g])
    return factor * total


@part_of_kernel
def poisson(log_library, proportions, log_proportions, genes, counts, d_mean):
    """Log-likelihood; fills its gradient with respect to the log mean."""
    library = exp(log_library)
    for g in range(len(proportions)):
        d_mean[g] = -library * proportions[g]
    value = -library
    for i in range(len(genes)):
        d_mean[genes[i]] += counts[i]
        value += counts[i] * (log_proportions[i] + log_library)
    return value


@part_of_kernel
def of_zeros(library, proportions, theta, log_growth, share, d_mean, d_theta):
    """Log-likelihood as if all counts were zero, and its gradients with respect to log mean and log theta.

    Fills log(1 + mean / theta) (`log_growth`) and mean / (mean + theta) (`share`), too.
    """
    value, one = theta.dtype.type(0), theta.dtype.type(1)
    for g in range(len(theta)):
        ratio = library * proportions[g] / theta[g]
        log_growth[g] = log1p(ratio)
        share[g] = ratio / (one + ratio)
    for g in range(len(theta)):
        value -= theta[g] * log_growth[g]
        d_mean[g] = -theta[g] * share[g]
        d_theta[g] = theta[g] * (share[g] - log_growth[g])
    return value


@part_of_kernel
def add_counts(log_library, log_proportions, genes, counts, theta, log_theta, log_growth, share, d_mean, d_theta):
    """What the nonzero counts add to `of_zeros`, but for the gamma functions."""
    value, one = theta.dtype.type(0), theta.dtype.type(1)
    for i in range(len(genes)):
        g, x = genes[i], counts[i]
        value += x * (log_proportions[i] + log_library - log_theta[g] - log_growth[g])
        unexplained = x * (one - share[g])
        d_mean[g] += unexplained
        d_theta[g] -= unexplained
    return value


@part_of_kernel
def add_tabulated_gammas(genes, counts, rising, slopes, d_theta, rest):
    """What the gamma functions add, from their tables (counts x genes); `rest` gets the nonzeros that have none."""
    value, n_rest = d_theta.dtype.type(0), 0
    for i in range(len(genes)):
        g, x = genes[i], counts[i]
        if x <= N_TABULATED:
            value += rising[int(x) - 1, g]
            d_theta[g] += slopes[int(x) - 1, g]
        else:
            rest[n_rest] = i
            n_rest += 1
    return value, n_rest


@part_of_kernel
def add_gammas(genes, counts, chosen, theta, d_theta):
    """What the gamma functions of the chosen nonzeros add, one by one."""
    value = 0.0
    for i in chosen:
        g = genes[i]
        rise, slope = log_rising(counts[i], theta[g])
        value += rise
        d_theta[g] += slope
    return d_theta.dtype.type(value)


@part_of_kernel
def inflate_zeros(logits, theta, log_growth, not_inflated, d_mean, d_theta, d_logits):
    """What zero inflation adds to `of_zeros`; changes its gradients and fills that of the log odds."""
    value, one, zero = theta.dtype.type(0), theta.dtype.type(1), theta.dtype.type(0)
    for g in range(len(theta)):
        log_nb = -theta[g] * log_growth[g]
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
def deflate_nonzeros(genes, logits, theta, log_growth, share, not_inflated, d_mean, d_theta, d_logits):
    """Take back what `inflate_zeros` did where counts are not zero; what remains is the log odds of no inflation."""
    value, zero, one = theta.dtype.type(0), theta.dtype.type(0), theta.dtype.type(1)
    for g in genes:
        log_nb = -theta[g] * log_growth[g]
        excess = log_nb - logits[g]
        value += log_nb - logits[g] - max(excess, zero) - log1p(exp(-abs(excess)))
        d_mean[g] = -theta[g] * share[g]
        d_theta[g] = theta[g] * (share[g] - log_growth[g])
        d_logits[g] += not_inflated[g] - one
    return value
