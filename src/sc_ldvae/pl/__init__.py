"""Pictures of a fitted AnnData or MuData. None but `posterior_predictive` needs counts."""

from __future__ import annotations

from sc_ldvae.pl._associations import associations
from sc_ldvae.pl._covariate_effects import covariate_effects
from sc_ldvae.pl._embedding import embedding
from sc_ldvae.pl._enrichment import enrichment
from sc_ldvae.pl._explained_deviance import explained_deviance
from sc_ldvae.pl._factors import factors
from sc_ldvae.pl._history import history
from sc_ldvae.pl._latent import latent
from sc_ldvae.pl._loadings import loadings
from sc_ldvae.pl._loadings_heatmap import loadings_heatmap
from sc_ldvae.pl._loadings_scatter import loadings_scatter
from sc_ldvae.pl._modalities import modalities
from sc_ldvae.pl._n_latent import n_latent
from sc_ldvae.pl._posterior_predictive import posterior_predictive
from sc_ldvae.pl._stability import stability

__all__ = [
    "associations",
    "covariate_effects",
    "embedding",
    "enrichment",
    "explained_deviance",
    "factors",
    "history",
    "latent",
    "loadings",
    "loadings_heatmap",
    "loadings_scatter",
    "modalities",
    "n_latent",
    "posterior_predictive",
    "stability",
]
