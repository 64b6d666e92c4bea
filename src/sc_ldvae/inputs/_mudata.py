"""A MuData and its modalities, matched by the names of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from sc_ldvae._said import said
from sc_ldvae.inputs._modality import is_mudata
from sc_ldvae.inputs._names import examples
from sc_ldvae.record import fits_in, joint_fits_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Data

# mudata 0.3.10 never again knows a modality that was deleted, and up to 0.3 no update takes cells that are new.
_CHANGED = (
    "Was it changed afterwards? Call mdata.update(), or if that does not help make it anew, "
    "mudata.MuData(dict(mdata.mod)), with the columns of obs that it had."
)


def check_mudata(data: Data, argument: str) -> MuData:
    """Refuse what has no modalities, or other ones than of the same cells.

    Raises
    ------
    TypeError
        If `data` is no MuData.
    ValueError
        If its modalities share genes in place of cells, or it does not know their cells.
    """
    if not is_mudata(data):
        msg = f"{argument} was given, but data is a {type(data).__name__}. Pass a MuData, or leave it out."
        raise TypeError(msg)
    mdata: Any = data
    if getattr(mdata, "axis", 0) != 0:
        msg = (
            f"data is a MuData whose modalities share axis {mdata.axis}, but a joint fit needs those of the same cells."
        )
        raise ValueError(msg)
    if not mdata.obs_names.is_unique:
        repeated = mdata.obs_names[mdata.obs_names.duplicated()][0]
        msg = f"obs_names of the MuData are not unique (for example {said(repeated)}). Give each cell its own name."
        raise ValueError(msg)
    return mdata


def modality_of(mdata: MuData, name: str) -> tuple[AnnData, NDArray[np.int64]]:
    """A modality, and the position in it of each cell of the MuData, -1 where it is not: by name.

    Raises
    ------
    ValueError, TypeError
        If there is no such modality, or if its cells can't be found by their names.
    """
    if name not in mdata.mod:
        msg = f"modalities: {name!r} is not in the MuData. Name some of {', '.join(map(said, mdata.mod))}."
        raise ValueError(msg)
    adata = mdata.mod[name]
    if not isinstance(adata, AnnData):
        msg = f"modalities: {name!r} is a {type(adata).__name__}, but must be an AnnData."
        raise TypeError(msg)
    if not adata.obs_names.is_unique:
        repeated = said(adata.obs_names[adata.obs_names.duplicated()][0])
        msg = f"obs_names of modality {name!r} are not unique (for example {repeated}). Give each cell its own name."
        raise ValueError(msg)
    strangers = adata.obs_names[mdata.obs_names.get_indexer(adata.obs_names) < 0]
    if len(strangers):
        msg = (
            f"{len(strangers)} cells of modality {name!r} ({examples(strangers.to_numpy())}) are not in obs_names of "
            f"the MuData. {_CHANGED}"
        )
        raise ValueError(msg)
    if not _knows_genes(mdata, name, adata):
        msg = f"Genes of modality {name!r} are not those that the MuData knows. {_CHANGED}"
        raise ValueError(msg)
    return adata, adata.obs_names.get_indexer(mdata.obs_names).astype(np.int64)


def _knows_genes(mdata: MuData, name: str, adata: AnnData) -> bool:
    """Whether the MuData has the genes of a modality where it says that it has them."""
    if name not in mdata.varmap:
        return False
    places = np.asarray(mdata.varmap[name], np.int64).ravel()
    own = places[places > 0] - 1
    return len(own) == adata.n_vars and bool((adata.var_names[own] == mdata.var_names[places > 0]).all())


def check_free(mdata: MuData, key: str, modalities: Sequence[str]) -> None:
    """Refuse to write a joint fit over one of a modality alone.

    Raises
    ------
    ValueError
        If there is such a fit.
    """
    taken = [name for name in modalities if key in fits_in(mdata.mod[name]) and not is_view(mdata, key, name)]
    if taken:
        msg = (
            f"key_added={key!r}: modality {taken[0]!r} has a fit of its own under this name. Give the joint fit "
            f"another name (key_added), or remove that one: del mdata[{taken[0]!r}].uns[{key!r}]."
        )
        raise ValueError(msg)


def is_view(mdata: MuData, key: str, modality: str) -> bool:
    """Whether the fit of a modality under this key is part of a joint one."""
    joint = joint_fits_in(mdata).get(key)
    return joint is not None and modality in joint["views"]
