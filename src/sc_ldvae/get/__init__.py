"""Frames out of a fitted AnnData or MuData."""

from __future__ import annotations

from sc_ldvae.get._frames import covariate_effects, factors, history, loadings, top_genes

__all__ = ["covariate_effects", "factors", "history", "loadings", "top_genes"]
