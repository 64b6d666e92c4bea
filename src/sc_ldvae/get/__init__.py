"""Frames out of a fitted AnnData or MuData."""

from __future__ import annotations

from sc_ldvae.get._associations import associations
from sc_ldvae.get._differential_expression import differential_expression
from sc_ldvae.get._enrichment import enrichment
from sc_ldvae.get._explained_deviance import explained_deviance
from sc_ldvae.get._feature_correlation import feature_correlation
from sc_ldvae.get._frames import covariate_effects, covariate_effects_se, factors, history
from sc_ldvae.get._latent import latent
from sc_ldvae.get._likelihood import latent_library_size, likelihood_parameters
from sc_ldvae.get._loadings import loadings, loadings_se
from sc_ldvae.get._modalities import modalities
from sc_ldvae.get._n_latent import n_latent
from sc_ldvae.get._stability import consensus_loadings, stability

# What no user needs, but the pictures: not in __all__.
from sc_ldvae.get._stability import replication as replication
from sc_ldvae.get._symbols import symbols_of as symbols_of
from sc_ldvae.get._top_genes import HALF_INTERVAL as HALF_INTERVAL
from sc_ldvae.get._top_genes import By as By
from sc_ldvae.get._top_genes import top_genes
from sc_ldvae.get._view import Per as Per
from sc_ldvae.get._view import Shown as Shown
from sc_ldvae.get._view import latent_of as latent_of

__all__ = [
    "associations",
    "consensus_loadings",
    "covariate_effects",
    "covariate_effects_se",
    "differential_expression",
    "enrichment",
    "explained_deviance",
    "factors",
    "feature_correlation",
    "history",
    "latent",
    "latent_library_size",
    "likelihood_parameters",
    "loadings",
    "loadings_se",
    "modalities",
    "n_latent",
    "stability",
    "top_genes",
]
