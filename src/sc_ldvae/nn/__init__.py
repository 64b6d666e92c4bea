"""The model in PyTorch: encoders, linear decoder, likelihoods. Knows torch only."""

from __future__ import annotations

from sc_ldvae.nn._encoder import Normal
from sc_ldvae.nn._ldvae import LDVAE, CountParameters, Dispersion, Elbo, LatentDistribution, Likelihood, Posterior
from sc_ldvae.nn._likelihoods import log_nb, log_poisson, log_zinb

__all__ = [
    "LDVAE",
    "CountParameters",
    "Dispersion",
    "Elbo",
    "LatentDistribution",
    "Likelihood",
    "Normal",
    "Posterior",
    "log_nb",
    "log_poisson",
    "log_zinb",
]
