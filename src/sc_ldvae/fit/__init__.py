"""From checked counts to canonical factors: start, schedule, loop, folding. Knows no AnnData."""

from __future__ import annotations

from sc_ldvae.fit._canonical import DRAWS, Factors, canonical, canonical_decoder, decoded_cells, deviance_on_held_out
from sc_ldvae.fit._deviance import Decoded, deviances_without
from sc_ldvae.fit._engine import Engine, engine_of
from sc_ldvae.fit._fit import Fitted, Trained, fit, trained
from sc_ldvae.fit._loop import History, Schedule, default_max_epochs
from sc_ldvae.fit._scores import elbo_terms, log_weights, mean_elbo, posterior
from sc_ldvae.fit._start import proportions
from sc_ldvae.fit._unfold import unfolded

__all__ = [
    "DRAWS",
    "Decoded",
    "Engine",
    "Factors",
    "Fitted",
    "History",
    "Schedule",
    "Trained",
    "canonical",
    "canonical_decoder",
    "decoded_cells",
    "default_max_epochs",
    "deviance_on_held_out",
    "deviances_without",
    "elbo_terms",
    "engine_of",
    "fit",
    "log_weights",
    "mean_elbo",
    "posterior",
    "proportions",
    "trained",
    "unfolded",
]
