"""The cells that a modality of a fit is decoded for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae import record
from sc_ldvae._lazy import frame_of
from sc_ldvae.inputs._modality import is_mudata, obs_of, pick_modality

if TYPE_CHECKING:
    from mudata import MuData

    from sc_ldvae._typing import Data


def to_decode(
    data: Data, key: str, modality: str | None, *, as_layer: bool
) -> tuple[AnnData, record.Record, record.State]:
    """An object with the cells and genes, the fit, and what it left of the cells.

    A modality of a joint fit is decoded for all cells of the MuData: those that lack it get the median library of the
    others. A layer has room for its own cells only.

    Raises
    ------
    ValueError, TypeError
        If there is no such object or fit.
    """
    if not as_layer and modality is not None and is_mudata(data) and key in record.joint_fits_in(data):
        stored = record.read_joint(data, key)
        if modality in stored.views:
            return _all_cells(data, stored, modality)
    adata = pick_modality(data, modality)
    alone = record.read(adata, key)
    return adata, alone, record.state_of(adata, alone)


def _all_cells(mdata: MuData, stored: record.JointRecord, modality: str) -> tuple[AnnData, record.Record, record.State]:
    view = stored.views[modality]
    state = record.state_of(mdata, stored).of_view(np.arange(mdata.n_obs), stored.modalities.index(modality))
    known = np.isfinite(state.library)
    # Of cells that were projected without it nobody knows any: those of the fit stand for proportions alone.
    typical = np.float32(np.median(state.library[known])) if known.any() else np.float32(1)
    state = replace(state, library=np.where(known, state.library, typical))
    genes = frame_of(mdata.mod[modality].var) if modality in mdata.mod else pd.DataFrame(index=view.genes)
    obsm = {name: values for name, values in mdata.obsm.items() if not isinstance(values, pd.DataFrame)}
    return AnnData(obs=obs_of(mdata).copy(), var=genes.copy(), obsm=obsm), view, state
