"""The model in PyTorch: encoders, linear decoder, likelihoods. Knows torch only."""

from __future__ import annotations

from sc_ldvae._options import Dispersion, LatentDistribution
from sc_ldvae.likelihoods import GeneLikelihood as Likelihood

# What no user needs, but the rooms above: not in __all__.
from sc_ldvae.nn._decoder import MOMENTUM as MOMENTUM
from sc_ldvae.nn._decoder import Grouped as Grouped
from sc_ldvae.nn._decoder import LinearDecoder as LinearDecoder
from sc_ldvae.nn._dropout import kept as kept
from sc_ldvae.nn._dropout import seed as seed
from sc_ldvae.nn._encoder import BATCH_NORM_EPS as BATCH_NORM_EPS
from sc_ldvae.nn._encoder import VARIANCE_FLOOR as VARIANCE_FLOOR
from sc_ldvae.nn._encoder import Encoder as Encoder
from sc_ldvae.nn._encoder import Layer as Layer
from sc_ldvae.nn._encoder import Normal
from sc_ldvae.nn._ldvae import LDVAE, CountParameters, Elbo, Posterior
from sc_ldvae.nn._log_probs import LOG_PROBS as LOG_PROBS
from sc_ldvae.nn._log_probs import log_bernoulli, log_nb, log_poisson, log_zinb
from sc_ldvae.nn._state import FACTORY as FACTORY
from sc_ldvae.nn._state import undisturbed as undisturbed

__all__ = [
    "LDVAE",
    "CountParameters",
    "Dispersion",
    "Elbo",
    "LatentDistribution",
    "Likelihood",
    "Normal",
    "Posterior",
    "log_bernoulli",
    "log_nb",
    "log_poisson",
    "log_zinb",
]
