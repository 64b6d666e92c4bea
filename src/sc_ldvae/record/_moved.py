"""A fit put into an object: its own, another one, or beside itself with its factors rotated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._lazy import frame_of
from sc_ldvae._products import product
from sc_ldvae.record._covariance import packed, turned
from sc_ldvae.record._joint import VIEWS, JointRecord, sealed_joint
from sc_ldvae.record._marks import fit_column, held_out, library_column
from sc_ldvae.record._new_fit import content_of
from sc_ldvae.record._others import OTHERS, of_others
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import sealed
from sc_ldvae.record._state import State
from sc_ldvae.record._store import OfModalities, write, write_joint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.record._keys import Keys
    from sc_ldvae.record._new_fit import Asked, JointFit


def write_projected(adata: AnnData, stored: Record, keys: Keys, state: State, held_out: Mask) -> None:
    """Put a fit and what it makes of the cells of `adata` there; `state` is in the frame of the model."""
    write(adata, _entries(adata, stored, keys, state, held_out) | {"uns": {keys.uns: stored.content_for(keys)}})


def write_joint_fit(
    mdata: MuData,
    keys: Keys,
    new: JointFit,
    asked: Mapping[str, Asked],
    *,
    weights: Sequence[float],
    hide_modality: float,
) -> None:
    """Put a fit of several modalities into `mdata` and these, all of it or nothing.

    Parameters
    ----------
    mdata
        The object of the fit.
    keys
        Where to put it.
    new
        The fit.
    asked
        What it was asked of each modality, by name, in the order of the fit.
    weights, hide_modality
        What it was asked of all.
    """
    views = {
        name: content_of(own, keys, mdata.mod[name].var_names[asked[name].mask], asked[name], name, list(asked))
        for name, own in zip(asked, new.of_views, strict=True)
    }
    own = {
        "explained_deviance": new.explained_deviance,
        "total_explained_deviance": new.total_explained_deviance,
        "weights": np.array(weights, dtype=np.float64),
        "hide_modality": float(hide_modality),
    }
    stored = JointRecord(keys, sealed_joint(own, keys, views))
    write_joint_state(mdata, stored, keys, State(new.latent, new.variance, new.library), new.held_out)


def write_joint_state(mdata: MuData, stored: JointRecord, keys: Keys, state: State, held_out: Mask) -> None:
    """Put a joint fit and what it makes of the cells of `mdata` there, and into those of its modalities that it has."""
    content, n_obs = stored.content_for(keys), len(held_out)
    of_modalities: dict[str, dict[str, dict[str, Any]]] = {}
    for place, (name, view) in enumerate(stored.views.items()):
        if name in mdata.mod:
            adata = mdata.mod[name]
            cells = mdata.obs_names.get_indexer(adata.obs_names)
            own = _entries(adata, view, keys, state.of_view(cells, place), held_out[cells])
            own["obs"] |= _columns_for(frame_of(mdata.obs).iloc[cells], frame_of(adata.obs), view)
            of_modalities[name] = own | {"uns": {keys.uns: content[VIEWS][name]}}
    of_all: dict[str, dict[str, Any]] = {
        "obsm": {keys.latent: _shown(state, stored.rotation), keys.variance: state.variance},
        "varm": {
            key: OfModalities({name: one["varm"][key] for name, one in of_modalities.items()}, fill)
            for key, fill in ((keys.loadings, 0), (keys.loadings_se, np.nan))
        },
        "obs": {keys.held_out: held_out, keys.fit: fit_column(stored, n_obs)},
        "uns": {keys.uns: content},
    }
    write_joint(mdata, of_all, of_modalities)


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
    content = _rotated_content(stored, keys, matrix, explained)
    # Where nobody knows which cells were held out, nobody does afterwards.
    known = held_out(adata, stored) if stored.keys.held_out in adata.obs else None
    entries = _entries(adata, Record(keys, content), keys, state, known)
    entries["obsm"][keys.variance] = state.variance.copy()
    write(adata, entries | {"uns": {keys.uns: content}})


def write_joint_rotated(
    mdata: MuData,
    stored: JointRecord,
    keys: Keys,
    state: State,
    matrix: Floats,
    explained: Sequence[tuple[float, Floats]],
    together: tuple[float, Floats],
) -> None:
    """The same for a fit of several modalities; what the factors explain is of each, and of all together."""
    views = {
        name: _rotated_content(view, keys, matrix, one)
        for (name, view), one in zip(stored.views.items(), explained, strict=True)
    }
    own = {"explained_deviance": together[1], "total_explained_deviance": together[0]}
    asked = {"weights": np.array(stored.weights), "hide_modality": stored.hide_modality}
    rotated = JointRecord(keys, sealed_joint(own | asked, keys, views))
    write_joint_state(mdata, rotated, keys, state, held_out(mdata, stored))


def _rotated_content(stored: Record, keys: Keys, matrix: Floats, explained: tuple[float, Floats]) -> dict[str, Any]:
    total, shares = explained
    content = stored.content_for(keys) | {"explained_deviance": shares, "total_explained_deviance": total}
    decoder, turn = stored.decoder.rotated(np.linalg.inv(matrix).T), stored.turn_to(matrix)
    content |= {"rotation": matrix, "decoder": decoder.to_dict()}
    # That was of the factors before.
    content.pop("prior_scale", None)
    if stored.loadings_covariance is not None:
        content["loadings_covariance"] = packed(turned(stored.loadings_covariance, turn))
    if decoder.others is not None:
        content[OTHERS] = of_others(stored.other_genes, decoder.others, turned(stored.others_covariance, turn))
    return sealed(content)


def _entries(
    adata: AnnData, stored: Record, keys: Keys, state: State, held_out: Mask | None
) -> dict[str, dict[str, Any]]:
    """What a fit makes of cells, where it stands in `adata`; `held_out` is None where nobody knows."""
    marks = {} if held_out is None else {keys.held_out: held_out}
    return {
        "obsm": {keys.latent: _shown(state, stored.rotation), keys.variance: state.variance},
        "varm": replace(stored, keys=keys).varm_for(adata.var_names),
        "obs": library_column(replace(stored, keys=keys), state.library)
        | marks
        | {keys.fit: fit_column(stored, len(state))},
    }


def _shown(state: State, rotation: Floats | None) -> Floats:
    """The shown latent, in the memory layout that files give back: sums round the same."""
    if rotation is None:
        return state.latent
    return np.ascontiguousarray(product(state.latent, rotation), dtype=np.float32)


def _columns_for(of_all: pd.DataFrame, of_modality: pd.DataFrame, stored: Record) -> dict[str, Any]:
    """What the fit knows of each cell, for a modality whose obs does not have it."""
    columns = (stored.design.batch, *stored.design.categorical, *stored.design.continuous, stored.labels)
    known = [column.key for column in columns if column is not None]
    return {key: of_all[key].array for key in known if key in of_all and key not in of_modality}
