"""Log proportions of cells under their posteriors, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.kernels import n_slices, normalise, own_threads

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats
    from sc_ldvae.record import Record, State


@dataclass(frozen=True)
class LogProportions:
    """What a cell's log proportions are made of, all in single precision.

    A log proportion is a linear function of the latent, less one number for all genes, the log normaliser of the
    softmax. So its posterior mean and variance are known, up to the curvature of that number, which is taken to second
    order: for gene g with row w of the decoder and slopes w_k of its factors, the mean is ``u @ w - log_sums``, and
    factor k adds ``(scale_k * (w_k - competing * latent @ w - centre_k)) ** 2`` to the variance.

    Where the likelihood has no library, there is no softmax either: log expression is that linear function itself,
    normaliser and mean slopes are zero.
    """

    decoder: Floats
    """Inputs x known genes; the softmax sums over those of the fit, which are the first."""
    u: Floats
    """Inputs: mean of the latent, covariates and 1, n_obs x inputs."""
    scale: Floats
    """Posterior standard deviation of the factors; for 'ln' times their shares of one, n_obs x n_latent."""
    centres: Floats
    """Mean slope of each factor over the genes, weighted by their proportions, n_obs x n_latent."""
    log_sums: Floats
    """Expected log normaliser, n_obs."""
    competing: np.float32
    """1 for 'ln', where one factor's gain is the others' loss, else 0."""

    @classmethod
    def of(cls, stored: Record, state: State, covariates: Floats) -> LogProportions:
        """Of cells with these covariates, n_obs x columns."""
        mean, scale = _moments(state, composition=stored.composition)
        u = np.hstack([mean, covariates, np.ones((len(state), 1))]).astype(np.float32)
        decoder, competing = stored.decoder.log_proportion.matrix(), np.float32(stored.composition)
        log_sums, centres = np.zeros(len(u), np.float32), np.zeros_like(scale)
        if stored.has_library:
            slices = n_slices(u.size * decoder.shape[1])
            with own_threads():
                normalise(slices, u, decoder, decoder[: scale.shape[1]], scale, competing, log_sums, centres)
        return cls(stored.decoder.known.matrix(), u, scale, centres, log_sums, competing)


def _moments(state: State, *, composition: bool) -> tuple[Floats, Floats]:
    """Mean of the latent, to second order for a softmax, and what one posterior standard deviation of a factor does."""
    latent, variance = state.latent.astype(np.float64), state.variance.astype(np.float64)
    scale = np.sqrt(variance)
    if composition:
        shift = 0.5 * variance * latent * (1 - 2 * latent)
        latent, scale = latent + shift - shift.sum(1, keepdims=True) * latent, scale * latent
    return latent, scale.astype(np.float32)
