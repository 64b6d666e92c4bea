"""Loadings of genes outside of a fit, put beside those of the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.record._joint import VIEWS, joint_fits_in, read_joint, sealed_joint
from sc_ldvae.record._others import OTHERS, of_others
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import sealed
from sc_ldvae.record._store import OfModalities, write, write_joint

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.record._decoder import AffineMap


def write_others(
    data: Any,  # noqa: ANN401  either of two
    modality: str | None,
    stored: Record,
    genes: NDArray[np.str_],
    log_proportion: AffineMap,
    covariance: Floats,
) -> None:
    """Put the loadings of genes outside of the fit beside it; those that have some already get these.

    Parameters
    ----------
    data, modality
        The object of the fit: an AnnData, or a MuData and one of its modalities.
    stored
        The fit.
    genes
        Names, n_genes.
    log_proportion, covariance
        What is known of them, in the frame in which the factors are shown.
    """
    kept = np.flatnonzero(~np.isin(stored.other_genes, genes))
    before = stored.shown_decoder.others
    if before is not None:
        log_proportion = before.of_genes(kept).above(log_proportion)
        covariance = np.concatenate([stored.others_covariance[kept], covariance])
        genes = np.concatenate([stored.other_genes[kept], genes])
    keys = stored.keys
    extended = Record(keys, sealed(stored.content_for(keys) | {OTHERS: of_others(genes, log_proportion, covariance)}))
    if modality is None:
        write(data, _entries(data, extended))
        return
    together = read_joint(data, keys.uns) if keys.uns in joint_fits_in(data) else None
    if together is None or together.views[modality].fingerprint != stored.fingerprint:
        # It was fitted alone, or again since.
        write(data.mod[modality], _entries(data.mod[modality], extended))
        return
    content = together.content_for(keys)
    views = content[VIEWS] | {modality: dict(extended.content)}
    own = {name: value for name, value in content.items() if name != VIEWS}
    there = [name for name in together.views if name in data.mod]
    entries = _entries(data.mod[modality], extended)
    varm = {
        key: OfModalities(
            {name: entries["varm"][key] if name == modality else data.mod[name].varm[key] for name in there}, fill
        )
        for key, fill in ((keys.loadings, 0), (keys.loadings_se, np.nan))
    }
    write_joint(data, {"varm": varm, "uns": {keys.uns: sealed_joint(own, keys, views)}}, {modality: entries})


def _entries(adata: AnnData, extended: Record) -> dict[str, dict[str, Any]]:
    return {"varm": extended.varm_for(adata.var_names), "uns": {extended.keys.uns: extended.content}}
