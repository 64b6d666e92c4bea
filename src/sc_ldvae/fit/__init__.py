"""From checked counts to canonical factors: start, schedule, loop, folding. Knows no AnnData."""

from __future__ import annotations

from sc_ldvae.engine import place
from sc_ldvae.fit._canonical import DRAWS, Factors, canonical, decoded_cells
from sc_ldvae.fit._course import Course
from sc_ldvae.fit._fit import Training, fit, new_fit, trained
from sc_ldvae.fit._fold import canonical_decoder
from sc_ldvae.fit._history import History
from sc_ldvae.fit._refits import refits
from sc_ldvae.fit._request import Request
from sc_ldvae.fit._resample import Resampled, Subsample, halves, resampled
from sc_ldvae.fit._scan import scan
from sc_ldvae.fit._schedule import Rounds, default_max_epochs, rounds_of
from sc_ldvae.fit._scores import (
    elbo_of_cells,
    elbo_terms,
    errors_of_cells,
    log_weights,
    marginals_of_cells,
    mean_elbo,
    posterior,
)
from sc_ldvae.fit._start import start_from_data
from sc_ldvae.fit._unfold import unfolded
from sc_ldvae.fit._watcher import Watcher, progress_bar

__all__ = [
    "DRAWS",
    "Course",
    "Factors",
    "History",
    "Request",
    "Resampled",
    "Rounds",
    "Subsample",
    "Training",
    "Watcher",
    "canonical",
    "canonical_decoder",
    "decoded_cells",
    "default_max_epochs",
    "elbo_of_cells",
    "elbo_terms",
    "errors_of_cells",
    "fit",
    "halves",
    "log_weights",
    "marginals_of_cells",
    "mean_elbo",
    "new_fit",
    "place",
    "posterior",
    "progress_bar",
    "refits",
    "resampled",
    "rounds_of",
    "scan",
    "start_from_data",
    "trained",
    "unfolded",
]
