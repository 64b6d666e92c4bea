"""Whether the sign of a loading is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats

_STEPS = 300
_TOLERANCE = 1e-6
# Ratio of neighbouring standard deviations of the prior's components.
_RATIO = np.sqrt(2)
# Weight in observations of the belief that a loading is zero, as in ashr.
_PSEUDO_ZEROS = 10


def signs(estimates: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Local false sign rate and q-value of each loading of a factor, by adaptive shrinkage [Stephens17]_.

    The true loadings are taken for draws from a mixture of zero and normal distributions around zero whose weights are
    those that make the estimates most probable.

    Parameters
    ----------
    estimates, errors
        Loadings and their standard errors, n_genes.

    Returns
    -------
    Probability that the loading is zero or of the other sign, and the expected share of such loadings among all that
    are at least as certain, n_genes each.

    References
    ----------
    .. [Stephens17] Stephens (2017). False discovery rates: a new deal. Biostatistics 18:275.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_ldvae.assess import signs
    >>> lfsr, qvalue = signs(np.array([3.0, 0.1, -0.2, 0.0]), np.full(4, 0.2))
    >>> lfsr.round(2)
    array([0.  , 1.  , 0.99, 1.  ])
    """
    estimates, errors = np.asarray(estimates, np.float64), np.asarray(errors, np.float64)
    sds = _grid(estimates, errors)
    log_densities = norm.logpdf(estimates[:, None], scale=np.hypot(errors[:, None], sds))
    membership = _memberships(log_densities)
    # Posterior of each component; the first is zero itself.
    shrinkage = sds**2 / (sds**2 + errors[:, None] ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        standardised = shrinkage * estimates[:, None] / (np.sqrt(shrinkage) * errors[:, None])
    below = (membership[:, 1:] * norm.cdf(-standardised[:, 1:])).sum(1)
    above = (membership[:, 1:] * norm.cdf(standardised[:, 1:])).sum(1)
    lfsr = np.clip(membership[:, 0] + np.minimum(below, above), 0, 1)
    order = np.argsort(lfsr, kind="stable")
    qvalue = np.empty_like(lfsr)
    qvalue[order] = np.cumsum(lfsr[order]) / np.arange(1, len(lfsr) + 1)
    return lfsr, qvalue


def _grid(estimates: Floats, errors: Floats) -> Floats:
    """Standard deviations of the prior's components: zero, and from far below the errors to beyond the estimates."""
    smallest = errors.min() / 10
    largest = max(2 * np.sqrt(max((estimates**2 - errors**2).max(), 0)), 8 * smallest)
    n = int(np.ceil(np.log(largest / smallest) / np.log(_RATIO)))
    return np.concatenate([[0.0], largest * _RATIO ** -np.arange(n, -1.0, -1.0)])


def _memberships(log_densities: Floats) -> Floats:
    """Posterior probability of each component, n_genes x components, under the most probable weights (by EM)."""
    densities = np.exp(log_densities - log_densities.max(1, keepdims=True))
    pseudo = np.zeros(densities.shape[1])
    pseudo[0] = _PSEUDO_ZEROS
    weights = np.full(densities.shape[1], 1 / densities.shape[1])
    for _ in range(_STEPS):
        joint = densities * weights
        membership = joint / joint.sum(1, keepdims=True)
        updated = (membership.sum(0) + pseudo) / (len(densities) + pseudo.sum())
        done = np.abs(updated - weights).max() < _TOLERANCE
        weights = updated
        if done:
            break
    joint = densities * weights
    return joint / joint.sum(1, keepdims=True)
