"""Pictures of a fitted AnnData or MuData. Every one needs no counts."""

from __future__ import annotations

from sc_ldvae.pl._history import history
from sc_ldvae.pl._loadings import loadings

__all__ = ["history", "loadings"]
