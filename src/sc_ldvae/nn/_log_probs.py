"""Log probabilities of counts, in log space; on the CPU with the gamma functions evaluated at nonzero counts only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sc_ldvae._bounds import LARGEST_LOG_THETA

if TYPE_CHECKING:
    from collections.abc import Callable

# Above this, Stirling's series of log Gamma is exact to 1e-11 with the terms kept below.
_STIRLING_FROM = 16.0
# Below, the log of a Poisson's mean is that of the probability of any count, even to double precision.
_LEAST_LOG_MEAN = -60.0


def log_poisson(x: Tensor, log_mu: Tensor) -> Tensor:
    """Elementwise log probability of counts under a Poisson distribution.

    Parameters
    ----------
    x
        Counts, n_cells x n_genes.
    log_mu
        Natural log of the mean, broadcastable to `x`.

    Returns
    -------
    Log probabilities in nats, shape of `x`.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import log_poisson
    >>> log_poisson(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([-1.])
    """
    return x * log_mu - log_mu.exp() - torch.lgamma(x + 1)


def log_bernoulli(x: Tensor, log_mu: Tensor) -> Tensor:
    """Elementwise log probability that there are counts where `x` has some, if they have a Poisson distribution.

    Parameters
    ----------
    x
        Counts, n_cells x n_genes, of which only matters whether they are above zero.
    log_mu
        Natural log of the mean of the Poisson distribution, broadcastable to `x`.

    Returns
    -------
    Log probabilities in nats, shape of `x`.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import log_bernoulli
    >>> log_bernoulli(torch.tensor([0.0, 1.0]), torch.zeros(2)).exp()
    tensor([0.3679, 0.6321])
    """
    # Of a smaller mean the log is that of the probability, too: it is taken out, for its exponential may be zero.
    least = log_mu.clamp(min=_LEAST_LOG_MEAN)
    log_any = (-torch.expm1(-least.exp())).log() + (log_mu - least)
    return torch.where(x > 0, log_any, -log_mu.exp())


def log_nb(x: Tensor, log_mu: Tensor, log_theta: Tensor) -> Tensor:
    """Elementwise log probability of counts under a negative binomial distribution.

    The variance is ``mu + mu ** 2 / theta``; log theta is taken for 20 where it is larger, and for -20 below.

    Parameters
    ----------
    x
        Counts, n_cells x n_genes.
    log_mu
        Natural log of the mean, broadcastable to `x`.
    log_theta
        Natural log of the inverse dispersion, broadcastable to `x`.

    Returns
    -------
    Log probabilities in nats, shape of `x`.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import log_nb
    >>> log_nb(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2)).exp()
    tensor([[0.5000, 0.5000]])
    """
    log_theta = log_theta.clamp(-LARGEST_LOG_THETA, LARGEST_LOG_THETA)
    log_odds = log_mu - log_theta
    of_mean = x * log_odds - (x + log_theta.exp()) * softplus(log_odds)
    if x.is_cpu:
        return of_mean.index_put(*_at_nonzeros(x, log_theta), accumulate=True)
    return of_mean + _everywhere(x, log_theta)


def log_nb_background(x: Tensor, log_mu: Tensor, log_theta: Tensor, log_background: Tensor) -> Tensor:
    """Elementwise log probability of counts under a negative binomial distribution above a background.

    Parameters
    ----------
    x
        Counts, n_cells x n_genes.
    log_mu
        Natural log of the foreground, what the mean is above the background, broadcastable to `x`.
    log_theta
        Natural log of the inverse dispersion, broadcastable to `x`.
    log_background
        Natural log of the background, broadcastable to `x`; it is taken for 20 where it is larger, and for -20 below.

    Returns
    -------
    Log probabilities in nats, shape of `x`.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import log_nb_background
    >>> zero = torch.zeros(1, 2)
    >>> log_nb_background(zero, zero, zero, zero).exp()
    tensor([[0.3333, 0.3333]])
    """
    log_background = log_background.clamp(-LARGEST_LOG_THETA, LARGEST_LOG_THETA)
    return log_nb(x, torch.logaddexp(log_mu, log_background), log_theta)


def log_zinb(x: Tensor, log_mu: Tensor, log_theta: Tensor, zi_logits: Tensor) -> Tensor:
    """Elementwise log probability of counts under a zero-inflated negative binomial distribution.

    Parameters
    ----------
    x
        Counts, n_cells x n_genes.
    log_mu
        Natural log of the mean of the negative binomial part, broadcastable to `x`.
    log_theta
        Natural log of the inverse dispersion, broadcastable to `x`.
    zi_logits
        Log odds of an extra zero, broadcastable to `x`.

    Returns
    -------
    Log probabilities in nats, shape of `x`.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import log_zinb
    >>> zero = torch.zeros(1, 2)
    >>> log_zinb(zero, zero, zero, zero).exp()
    tensor([[0.7500, 0.7500]])
    """
    nb = log_nb(x, log_mu, log_theta)
    no_inflation = softplus(-zi_logits)
    return torch.where(x > 0, nb - zi_logits, softplus(nb - zi_logits)) - no_inflation


def _at_nonzeros(x: Tensor, log_theta: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Positions of the nonzeros, and `_log_rising` of each."""
    cells, genes = x.nonzero(as_tuple=True)
    thetas = log_theta.expand(*log_theta.shape[:-1], x.shape[1]).reshape(-1, x.shape[1])
    return (cells, genes), _log_rising(x[cells, genes], thetas[cells if len(thetas) > 1 else 0, genes])


# The CPU would have to wait for a device that looks for its nonzeros. Zeros are masked for the sake of rare genes: what
# they add to the gradients cancels, but not to the last bit.
def _everywhere(x: Tensor, log_theta: Tensor) -> Tensor:
    """`_log_rising` of all counts, n_cells x n_genes."""
    return torch.where(x > 0, _log_rising(x, log_theta), 0.0)


def _log_rising(x: Tensor, log_theta: Tensor) -> Tensor:
    """log(Gamma(x + theta) / (Gamma(theta) x!)) without the cancellation of two large log gammas at large theta."""
    theta = log_theta.exp()
    small = theta.clamp(max=_STIRLING_FROM)
    direct = torch.lgamma(x + small) - torch.lgamma(small)
    large = theta.clamp(min=_STIRLING_FROM)
    growth = torch.log1p(x / large)
    stirling = (x + large - 0.5) * growth + x * (large.log() - 1) + _stirling_rest(x + large) - _stirling_rest(large)
    return torch.where(theta < _STIRLING_FROM, direct, stirling) - torch.lgamma(x + 1)


def _stirling_rest(a: Tensor) -> Tensor:
    """What Stirling's formula leaves out of log Gamma(a), for a >= 16 (Abramowitz and Stegun 6.1.41)."""
    inverse = 1 / a
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


# Of each likelihood by name; arguments after the log mean are its parts, in their order.
LOG_PROBS: dict[str, Callable[..., Tensor]] = {
    "nb": log_nb,
    "zinb": log_zinb,
    "poisson": log_poisson,
    "bernoulli": log_bernoulli,
    "nb_background": log_nb_background,
}
