"""Rotations by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from sc_ldvae import assess
from sc_ldvae.record import state_of

if TYPE_CHECKING:
    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.record import JointRecord, Record


def rotation_of(data: Data, stored: Record | JointRecord, method: str, argument: str) -> Floats:
    """Matrix that takes the model's latent to the rotated one, n_latent x n_latent; `argument` names the method.

    Raises
    ------
    ValueError
        If the method is unknown, needs a joint fit and this is none, or the fit's factors are shares of one.
    """
    if method not in get_args(assess.Method):
        msg = f"{argument}={method!r} is unknown. Choose {' or '.join(map(repr, get_args(assess.Method)))}."
        raise ValueError(msg)
    if stored.composition:
        msg = (
            f"{argument}={method!r} was given, but with latent_distribution='ln' factors are shares of one, which have "
            "no rotation. Leave it out, or fit with latent_distribution='normal'."
        )
        raise ValueError(msg)
    loadings, information = of_modalities(data, stored)
    return rotation(method, loadings, information, argument)


def rotation(method: str, loadings: list[Floats], information: list[Floats], argument: str) -> Floats:
    """The same of the loadings of each modality, n_genes x n_latent, and the information about each gene."""
    if method in assess.ROTATIONS:
        return assess.ROTATIONS[method](np.vstack(loadings), np.concatenate(information))
    if len(loadings) == 1:
        msg = f"{argument}={method!r} needs a joint fit of several modalities (modalities= in sc_ldvae.tl.ldvae)."
        raise ValueError(msg)
    return assess.by_modality(loadings, information)


def of_modalities(data: Data, stored: Record | JointRecord) -> tuple[list[Floats], list[Floats]]:
    """Loadings in the model's frame, and how well genes are measured by the average cell, of each modality."""
    library = state_of(data, stored).library
    loadings, information = [], []
    for view, own in zip(stored.views.values(), library.reshape(len(library), -1).T, strict=True):
        known = own[np.isfinite(own)]
        loadings.append(view.decoder.log_proportion.loadings)
        mean = float(known.mean(dtype=np.float64)) if len(known) else 1.0
        information.append(assess.gene_information(view.decoder, mean) * (len(known) / len(own)))
    return loadings, information


def softmaxes(stored: Record | JointRecord) -> list[slice]:
    """Where genes stand that share a softmax, among those of all modalities."""
    views = stored.views.values()
    return assess.softmaxes(
        [view.decoder.log_proportion.loadings for view in views], [view.has_library for view in views]
    )
