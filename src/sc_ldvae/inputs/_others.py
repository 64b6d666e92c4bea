"""Genes outside of a fit, and their counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae._lazy import frame_of
from sc_ldvae._said import said
from sc_ldvae._typing import Unset
from sc_ldvae.inputs._counts import check_genes, counts_of
from sc_ldvae.inputs._names import check_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts import Source
    from sc_ldvae.record import Record


def other_genes(adata: AnnData, stored: Record, genes: Sequence[str] | str | None) -> Positions:
    """Positions among var_names of genes outside of the fit, in their order; of all of them for None.

    Raises
    ------
    ValueError
        If there is none, or if a gene is not in the object, is in the fit, or is named twice.
    """
    check_genes(adata)
    fitted = adata.var_names.isin(stored.genes)
    if genes is None:
        if fitted.all():
            msg = f"All genes of data are in the fit uns[{stored.keys.uns!r}]: there is none to give loadings."
            raise ValueError(msg)
        return np.flatnonzero(~fitted)
    wanted = pd.Index([genes] if isinstance(genes, str) else list(genes), dtype=object)
    if not len(wanted):
        msg = "genes is empty. Name at least one gene, or leave it out."
        raise ValueError(msg)
    check_once(wanted, "genes")
    places = adata.var_names.get_indexer(wanted)
    if (places < 0).any():
        unknown = wanted[places < 0][0]
        msg = f"genes holds {said(unknown)}, which is not among the {adata.n_vars} var_names."
        raise ValueError(msg + _whose_symbol(adata, unknown))
    if fitted[places].any():
        msg = f"genes holds {said(wanted[fitted[places]][0])}, which has loadings by the fit. Name others."
        raise ValueError(msg)
    return np.sort(places)


def _whose_symbol(adata: AnnData, gene: str) -> str:
    """What to do where it is the name of a gene in a column of var."""
    var = frame_of(adata.var)
    for column in var:
        named = adata.var_names[(var[column] == gene).to_numpy(dtype=bool, na_value=False)]
        if len(named):
            return (
                f" var[{said(column)}] calls {said(named[0])} so. Name that, or rename all genes first: "
                f"sc_ldvae.tl.rename_genes(adata, {said(column)})."
            )
    return ""


def counts_of_others(adata: AnnData, stored: Record, layer: str | Unset | None, genes: Positions) -> Source:
    """Checked counts of the genes at these positions."""
    layer = stored.param("layer") if isinstance(layer, Unset) else layer
    return counts_of(adata, layer, genes, may_be_empty=True)
