"""A fit put into another object, or beside itself with its factors rotated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._products import product
from sc_ldvae.record._covariance import packed, turned
from sc_ldvae.record._marks import fit_column, held_out, library_column
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import sealed
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.record._keys import Keys
    from sc_ldvae.record._state import State


def write_projected(adata: AnnData, stored: Record, keys: Keys, state: State, held_out: Mask) -> None:
    """Put a fit and what it makes of the cells of `adata` there; `state` is in the frame of the model."""
    latent = state.latent if stored.rotation is None else _rotated(state.latent, stored.rotation)
    entries: dict[str, dict[str, Any]] = {
        "obsm": {keys.latent: latent, keys.variance: state.variance},
        "varm": _of_genes(adata, stored, keys),
        "obs": library_column(replace(stored, keys=keys), state.library)
        | {keys.held_out: held_out, keys.fit: fit_column(stored, len(held_out))},
        "uns": {keys.uns: stored.content_for(keys)},
    }
    write(adata, entries)


def write_rotated(
    adata: AnnData, stored: Record, keys: Keys, state: State, matrix: Floats, explained: tuple[float, Floats]
) -> None:
    """Put the rotated fit beside the fit that `adata` has.

    Parameters
    ----------
    adata
        The object of the fit.
    stored, state
        The fit, and its cells in the frame of the model.
    keys
        Where to put it.
    matrix
        From the model's latent to the rotated one, n_latent x n_latent.
    explained
        Total and each rotated factor's share of the explained deviance.
    """
    total, shares = explained
    content = stored.content_for(keys) | {"explained_deviance": shares, "total_explained_deviance": total}
    decoder = stored.decoder.rotated(np.linalg.inv(matrix).T)
    content |= {"rotation": matrix, "decoder": decoder.to_dict()}
    # That was of the factors before.
    content.pop("prior_scale", None)
    if stored.loadings_covariance is not None:
        content["loadings_covariance"] = packed(turned(stored.loadings_covariance, stored.turn_to(matrix)))
    rotated = Record(keys, content)
    # Where nobody knows which cells were held out, nobody does afterwards.
    known = {keys.held_out: held_out(adata, stored)} if stored.keys.held_out in adata.obs else {}
    obs = library_column(rotated, state.library) | known | {keys.fit: fit_column(rotated, len(state))}
    content = sealed(content)
    entries: dict[str, dict[str, Any]] = {
        "obsm": {keys.latent: _rotated(state.latent, matrix), keys.variance: state.variance.copy()},
        "varm": _of_genes(adata, rotated, keys),
        "obs": obs,
        "uns": {keys.uns: content},
    }
    write(adata, entries)


def _rotated(latent: Floats, matrix: Floats) -> Floats:
    """The shown latent, in the memory layout that files give back: sums round the same."""
    return np.ascontiguousarray(product(latent, matrix), dtype=np.float32)


def _of_genes(adata: AnnData, known: Record, keys: Keys) -> dict[str, Floats]:
    """Loadings, and their standard errors where they are known, for varm: zero for genes that were not fitted."""
    entries = {keys.loadings: known.at_genes(adata.var_names, known.shown_decoder.log_proportion.loadings)}
    if known.loadings_covariance is not None:
        errors = np.sqrt(np.diagonal(known.loadings_covariance, axis1=1, axis2=2))
        entries[keys.loadings_se] = known.at_genes(adata.var_names, errors)
    return entries
