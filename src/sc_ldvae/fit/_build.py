"""The module that a fit is asked for."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sc_ldvae.nn import LDVAE, JointLDVAE

if TYPE_CHECKING:
    import torch

    from sc_ldvae.fit._request import Request
    from sc_ldvae.nn import Model


def built(request: Request, n_latent: int, generator: torch.Generator) -> Model:
    """A fresh model with so many factors; of several modalities, one of each."""
    options, levels = replace(request.options, n_latent=n_latent), asdict(request.levels)
    if not request.blocks:
        return LDVAE(request.cells.source.n_vars, **asdict(options), **levels, generator=generator)
    views = []
    for block in request.blocks:
        own = options.of_modality(block.gene_likelihood, block.dispersion)
        views.append(LDVAE(block.stop - block.start, **asdict(own), **levels, generator=generator))
    return JointLDVAE(views, request.weights)
