"""The one evaluator of all count models: plain NumPy, no formula taken from either package."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from benchmarks.count_model import Normal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from benchmarks.count_model import Affine, CountModel

    Floats = NDArray[np.float64]

# Cells whose tile, cells x genes, stays in the cache.
_CHUNK = 128
_LOG_2_PI = np.log(2 * np.pi)


class Terms(NamedTuple):
    """Terms of the ELBO at KL weight 1, one value per cell, in nats."""

    log_likelihood: Floats
    kl_z: Floats
    kl_library: Floats

    @property
    def elbo(self) -> Floats:
        """Evidence lower bound of each cell."""
        return self.log_likelihood - self.kl_z - self.kl_library


class NegativeBinomial:
    """Log probability of cells' counts, given draws of what they depend on.

    The distribution has mean ``exp(log_library) * softmax(decoder(z))`` and variance ``mean + mean^2 / theta``:
    ``scipy.stats.nbinom(theta, theta / (theta + mean))``.
    """

    def __init__(self, counts: csr_matrix, decoder: Affine, log_theta: Floats) -> None:
        self._x = counts.tocoo()
        self._decoder, self._log_theta, self._theta = decoder, log_theta, np.exp(log_theta)
        # The gamma functions need neither latent nor library, and cancel where the count is zero.
        x, theta = self._x.data.astype(np.float64), self._theta[self._x.col]
        self._constant = self._per_cell(gammaln(x + theta) - gammaln(theta) - gammaln(x + 1))

    def __call__(self, z: Floats, log_library: Floats) -> Floats:
        """Log probability of each cell, n_cells, for its latent (n_cells x n_latent) and log library (n_cells)."""
        x, rows, columns = self._x.data, self._x.row, self._x.col
        log_odds = self._decoder(z)
        log_odds -= log_odds.max(1, keepdims=True)
        odds = np.exp(log_odds)
        scale = log_library - np.log(odds.sum(1))
        log_odds += scale[:, None] - self._log_theta
        odds *= np.exp(scale)[:, None] / self._theta
        excess = np.log1p(odds)
        at_counts = self._per_cell(x * (log_odds[rows, columns] - excess[rows, columns]))
        return self._constant + at_counts - excess @ self._theta

    def _per_cell(self, values: Floats) -> Floats:
        return np.bincount(self._x.row, weights=values, minlength=self._x.shape[0])


def elbo_terms(model: CountModel, counts: csr_matrix, z: Floats, log_library: Floats) -> Terms:
    """Terms of the ELBO with the given draws from the posterior, n_cells x n_latent and n_cells."""
    posterior, library = model.z_encoder(counts), model.library_encoder(counts)
    likelihood = NegativeBinomial(counts, model.decoder, model.log_theta)
    return Terms(likelihood(z, log_library), kl(posterior, 0.0, 1.0), kl(library, *model.library_prior))


def scores(
    model: CountModel, counts: csr_matrix, *, n_draws: int = 10, n_importance: int = 0, seed: int = 0
) -> dict[str, float]:
    """Means over cells, in nats: ELBO at KL weight 1, its terms, and the importance-weighted log-likelihood.

    Parameters
    ----------
    model
        Any fitted model.
    counts
        Cells x genes.
    n_draws
        Draws from the posterior for the ELBO, the same ones for every model.
    n_importance
        Draws for the bound ``log mean(p(x, z, l) / q(z, l | x))`` (Burda et al. 2016) of the marginal log-likelihood,
        which does not ask how well the encoder is fitted; 0 leaves it out.
    seed
        Of the draws.
    """
    n_variables = len(model.decoder.weight.T) + 1
    n_most = max(n_draws, n_importance)
    noise = np.random.default_rng(seed).normal(size=(n_most, counts.shape[0], n_variables))
    parts = [
        _chunk_scores(model, counts[chunk], noise[:, chunk], n_draws, n_importance)
        for chunk in _chunks(counts.shape[0])
    ]
    return {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}


def kl(posterior: Normal, prior_mean: float, prior_variance: float) -> Floats:
    """Kullback-Leibler divergence from a normal prior, summed over the variables of each cell."""
    ratio = posterior.variance / prior_variance
    distance = (posterior.mean - prior_mean) ** 2 / prior_variance
    return 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(1)


def _chunk_scores(
    model: CountModel, counts: csr_matrix, noise: Floats, n_draws: int, n_importance: int
) -> dict[str, Floats]:
    z, library = model.z_encoder(counts), model.library_encoder(counts)
    joint = Normal(np.hstack([z.mean, library.mean]), np.hstack([z.variance, library.variance]))
    prior_mean, prior_variance = model.library_prior
    prior = Normal(
        np.append(np.zeros(z.mean.shape[1]), prior_mean), np.append(np.ones(z.mean.shape[1]), prior_variance)
    )
    likelihood = NegativeBinomial(counts, model.decoder, model.log_theta)
    draws = joint.mean + np.sqrt(joint.variance) * noise
    log_likelihood = np.array([likelihood(draw[:, :-1], draw[:, -1]) for draw in draws])
    terms = Terms(log_likelihood[:n_draws].mean(0), kl(z, 0.0, 1.0), kl(library, prior_mean, prior_variance))
    result = {"elbo": terms.elbo} | terms._asdict()
    if n_importance:
        log_weights = log_likelihood + _log_density(draws, prior) - _log_density(draws, joint)
        result["log_marginal"] = logsumexp(log_weights[:n_importance], axis=0) - np.log(n_importance)
    return result


def _log_density(draws: Floats, normal: Normal) -> Floats:
    squares = (draws - normal.mean) ** 2 / normal.variance
    return -0.5 * (squares + np.log(normal.variance) + _LOG_2_PI).sum(-1)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))
