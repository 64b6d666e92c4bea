"""A start from the data: intercepts, dispersions, and factors from a truncated SVD, in decoder and encoder alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae.nn import LDVAE
    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.nn._encoder import Encoder

# A start needs no more cells than this, and the SVD would cost more than the fit.
MAX_CELLS = 20_000
_LOG_ODDS_OF_INFLATION = -3.0
_LATENT_LOG_VARIANCE = -2.0
_LIBRARY_LOG_VARIANCE = -4.0


class Svd(NamedTuple):
    """Truncated SVD of the centred log-normalised counts."""

    scores: NDArray[np.float64]
    """n_obs x k, unit variance."""
    effects: NDArray[np.float64]
    """n_vars x k: log fold change per unit of the score."""
    directions: NDArray[np.float64]
    """n_vars x k, unit length."""


@torch.no_grad()
def start_from_data(model: LDVAE, counts: sparse.csr_matrix) -> None:
    """Set the parameters of a fresh model from the training cells' counts, n_obs x n_vars.

    The encoder's hidden units start as pairs of opposite projections on the SVD's directions: the difference of a pair
    after ReLU is the projection itself, so the latent's mean starts as the scores that the decoder's loadings expect.
    What the reference draws at random and the data can't tell (the other hidden units) stays random.
    """
    counts = counts.astype(np.float64)
    library = np.asarray(counts.sum(1)).ravel()
    svd = truncated_svd(counts, library, min(model.n_latent, min(counts.shape) - 2))
    _start_mean(model, proportions(counts), svd)
    _start_theta(model, log_theta_by_moments(counts, library))
    if model.zi_decoder is not None:
        _start_zero_inflation(model.zi_decoder)

    seen = counts.log1p() if model.log_variational else counts
    _start_encoder(model.z_encoder, seen, svd.directions, svd.scores, _LATENT_LOG_VARIANCE)
    if model.l_encoder is not None:
        everything = np.full((counts.shape[1], 1), counts.shape[1] ** -0.5)
        log_library = np.log(library)
        _start_encoder(model.l_encoder, seen, everything, log_library[:, None], _LIBRARY_LOG_VARIANCE)


def proportions(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Share of each gene in all counts, n_vars; half a count extra, so that none is zero."""
    totals = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1]) + 0.5
    return totals / totals.sum()


def truncated_svd(counts: sparse.csr_matrix, library: NDArray[np.float64], k: int) -> Svd:
    """SVD of log1p of counts per median library, centred over cells without building the dense matrix."""
    n_obs, n_vars = counts.shape
    log = sparse.csr_matrix(sparse.diags(np.median(library) / library) @ counts).log1p()
    mean = np.asarray(log.mean(0)).ravel()
    if k < 1:
        return Svd(np.zeros((n_obs, 0)), np.zeros((n_vars, 0)), np.zeros((n_vars, 0)))

    def times(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return log @ v - mean @ v

    def transposed_times(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return log.T @ u - np.multiply.outer(mean, u.sum(0))

    centred = LinearOperator(
        (n_obs, n_vars),
        matvec=times,
        matmat=times,
        rmatvec=transposed_times,
        rmatmat=transposed_times,
        dtype=np.float64,
    )
    # ARPACK's own start vector would come from a global generator.
    start = np.random.default_rng(0).normal(size=min(counts.shape))
    left, values, right = svds(centred, k=k, v0=start)
    order = np.argsort(-values)
    directions = right[order].T
    effects = directions * values[order] / np.sqrt(n_obs)
    return Svd(left[:, order] * np.sqrt(n_obs), effects - effects.mean(0), directions)


def log_theta_by_moments(counts: sparse.csr_matrix, library: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log inverse dispersion of each gene, n_vars, from its variance beyond Poisson at its mean proportion."""
    relative = library / library.mean()
    mean = np.asarray(counts.mean(0)).ravel()
    mean_square = np.asarray(counts.multiply(counts).mean(0)).ravel()
    explained = mean**2 * np.mean(relative**2)
    # Bounds: a start far outside of them has no gradient to come back with.
    theta = explained / np.maximum(mean_square - mean - explained, explained / 100 + np.finfo(float).tiny)
    return np.log(np.clip(theta, 0.1, 100))


def _start_mean(model: LDVAE, mean: NDArray[np.float64], svd: Svd) -> None:
    decoder, k = model.decoder, svd.effects.shape[1]
    # A softmax moves by about 1 / n_latent per unit of its input.
    scale = model.n_latent if model.latent_distribution == "ln" else 1
    _copy(decoder.weight[:, :k], svd.effects * scale)
    _copy_intercept(decoder, np.log(mean))
    if decoder.gamma is not None:
        _copy(decoder.gamma, np.sqrt((svd.effects**2).sum(1) + 1e-3))


def _start_theta(model: LDVAE, log_theta: NDArray[np.float64]) -> None:
    if model.log_theta is not None:
        _copy(model.log_theta, np.broadcast_to(log_theta, tuple(model.log_theta.shape)))
    elif model.theta_decoder is not None:
        _copy_intercept(model.theta_decoder, log_theta)


def _start_zero_inflation(decoder: LinearDecoder) -> None:
    """Few extra zeros, about the same in every cell."""
    _copy_intercept(decoder, np.full(len(decoder.weight), _LOG_ODDS_OF_INFLATION))
    slope = decoder.weight if decoder.gamma is None else decoder.gamma
    slope.mul_(0.1)


def _copy_intercept(decoder: LinearDecoder, values: NDArray[np.float64]) -> None:
    intercept = decoder.bias if decoder.beta is None else decoder.beta
    if intercept is not None:
        _copy(intercept, values)


def _start_encoder(
    encoder: Encoder,
    seen: sparse.csr_matrix,
    directions: NDArray[np.float64],
    targets: NDArray[np.float64],
    log_variance: float,
) -> None:
    """Let the posterior's mean be the regression of `targets` on the projection of what is `seen` on `directions`."""
    k = min(directions.shape[1], encoder.mean.in_features // 2)
    weights = directions[:, :k].T
    for layer in encoder.hidden():
        _copy(layer.linear.weight[:k], weights)
        _copy(layer.linear.weight[k : 2 * k], -weights)
        # A pair's difference is the projection that the next layer's pair passes on.
        weights = np.eye(k, layer.linear.out_features) - np.eye(k, layer.linear.out_features, k)
    projections = seen @ directions[:, :k]
    spread = (projections - projections.mean(0)) / np.maximum(projections.std(0), np.finfo(float).tiny)
    slopes = (spread * (targets[:, :k] - targets[:, :k].mean(0))).mean(0)
    encoder.mean.weight.zero_()
    _copy(encoder.mean.weight[:k], slopes[:, None] * weights)
    encoder.mean.bias.zero_()
    _copy(encoder.mean.bias[:k], targets[:, :k].mean(0))
    encoder.log_variance.weight.mul_(0.1)
    encoder.log_variance.bias.fill_(log_variance)


def _copy(target: torch.Tensor, values: NDArray[np.float64]) -> None:
    target.copy_(torch.tensor(values))
