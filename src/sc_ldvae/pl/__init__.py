"""Pictures of a fitted AnnData or MuData. None but `posterior_predictive` needs counts."""

from __future__ import annotations

from sc_ldvae.pl._history import history
from sc_ldvae.pl._loadings import loadings
from sc_ldvae.pl._posterior_predictive import posterior_predictive

__all__ = ["history", "loadings", "posterior_predictive"]
