"""Rotations by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import assess
from sc_ldvae.record import state_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Floats
    from sc_ldvae.record import Record


def rotation_of(adata: AnnData, stored: Record, method: str, argument: str) -> Floats:
    """Matrix that takes the model's latent to the rotated one, n_latent x n_latent; `argument` names the method.

    Raises
    ------
    ValueError
        If the method is unknown, or the fit's factors are shares of one.
    """
    if method not in assess.ROTATIONS:
        msg = f"{argument}={method!r} is unknown. Choose {' or '.join(map(repr, assess.ROTATIONS))}."
        raise ValueError(msg)
    if stored.composition:
        msg = (
            f"{argument}={method!r} was given, but with latent_distribution='ln' factors are shares of one, which have "
            "no rotation. Leave it out, or fit with latent_distribution='normal'."
        )
        raise ValueError(msg)
    library = float(state_of(adata, stored).library.mean(dtype=np.float64))
    information = assess.gene_information(stored.decoder, library)
    return assess.ROTATIONS[method](stored.decoder.log_proportion.loadings, information)
