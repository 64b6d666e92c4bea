"""Tools: what users call on an AnnData or MuData."""

from __future__ import annotations

from sc_ldvae.tl._associate import associate
from sc_ldvae.tl._compile_kernels import compile_kernels
from sc_ldvae.tl._differential_expression import differential_expression
from sc_ldvae.tl._elbo import elbo
from sc_ldvae.tl._enrichment import enrichment
from sc_ldvae.tl._explained_deviance import explained_deviance
from sc_ldvae.tl._extend import extend
from sc_ldvae.tl._ldvae import ldvae
from sc_ldvae.tl._marginal_log_likelihood import marginal_log_likelihood
from sc_ldvae.tl._normalized_expression import normalized_expression
from sc_ldvae.tl._posterior_predictive import posterior_predictive
from sc_ldvae.tl._project import project
from sc_ldvae.tl._reconstruction_error import reconstruction_error
from sc_ldvae.tl._rename_genes import rename_genes
from sc_ldvae.tl._rotate import rotate
from sc_ldvae.tl._select_n_latent import select_n_latent
from sc_ldvae.tl._stability import stability

__all__ = [
    "associate",
    "compile_kernels",
    "differential_expression",
    "elbo",
    "enrichment",
    "explained_deviance",
    "extend",
    "ldvae",
    "marginal_log_likelihood",
    "normalized_expression",
    "posterior_predictive",
    "project",
    "reconstruction_error",
    "rename_genes",
    "rotate",
    "select_n_latent",
    "stability",
]
