"""Frames out of a fitted AnnData or MuData."""

from __future__ import annotations

from sc_ldvae.get._associations import associations
from sc_ldvae.get._differential_expression import differential_expression
from sc_ldvae.get._enrichment import enrichment
from sc_ldvae.get._feature_correlation import feature_correlation
from sc_ldvae.get._frames import covariate_effects, factors, history
from sc_ldvae.get._likelihood import latent_library_size, likelihood_parameters
from sc_ldvae.get._loadings import loadings, loadings_se, top_genes

__all__ = [
    "associations",
    "covariate_effects",
    "differential_expression",
    "enrichment",
    "factors",
    "feature_correlation",
    "history",
    "latent_library_size",
    "likelihood_parameters",
    "loadings",
    "loadings_se",
    "top_genes",
]
