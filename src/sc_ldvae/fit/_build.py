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
    views = [
        LDVAE(block.stop - block.start, **asdict(block.options(options)), **levels, generator=generator)
        for block in request.blocks
    ]
    return JointLDVAE(views, request.weights)
