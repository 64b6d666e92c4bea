"""Which genes are fitted: scanpy's choice, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._options import ModelOptions
from sc_ldvae._quiet import quiet
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def select(adata: AnnData, asked: dict[str, Any]) -> None:
    """Mark the genes that scanpy finds most variable, as ``var['highly_variable']``, which a fit goes by.

    Raises
    ------
    ValueError, TypeError
        If there are not so many, if the counts are none, or if scanpy can't tell.
    """
    import scanpy as sc

    from sc_ldvae import inputs

    n_top_genes, layer, batch_key = asked["n_top_genes"], asked["layer"], asked["batch_key"]
    inputs.check_object(adata)
    if not 1 <= n_top_genes <= adata.n_vars:
        msg = f"n_top_genes must be between 1 and the number of genes, {adata.n_vars}, but is {n_top_genes}."
        raise ValueError(msg)
    # scanpy takes anything for counts and for batches: they are refused here, as a fit refuses them.
    model = ModelOptions(gene_likelihood=asked["gene_likelihood"])
    options = inputs.Options(inputs.Columns(batch_key=batch_key), model, layer=layer, device="cpu")
    inputs.request_of(adata, np.ones(adata.n_vars, dtype=np.bool_), options)
    try:
        with quiet():
            sc.pp.highly_variable_genes(
                adata, flavor="seurat_v3", n_top_genes=n_top_genes, layer=layer, batch_key=batch_key
            )
    # Its loess says in a word of its own, in bytes, that there is too little to see a trend in.
    except ValueError as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        msg = (
            f"n_top_genes={n_top_genes}: scanpy can't tell how variable genes are ({why}). It needs more genes, or "
            "more cells in each batch. Leave out batch_key, or select genes first, as a boolean column "
            "'highly_variable' of var."
        )
        raise ValueError(msg) from error


def select_in_modalities(mdata: MuData, asked: dict[str, Any]) -> None:
    """The same in each modality with counts of genes that has more than are to be fitted, by the MuData's batches.

    Raises
    ------
    ValueError, TypeError
        If there is none, or as for one.
    """
    from sc_ldvae import inputs, record

    modalities, n_top_genes, key = asked["modalities"], asked["n_top_genes"], asked["batch_key"]
    if not isinstance(modalities, dict):
        modalities = dict.fromkeys(modalities, asked["gene_likelihood"])
    inputs.check_mudata(mdata, "modalities")
    found = {name: inputs.modality_of(mdata, name)[0] for name in modalities}
    chosen = [name for name in found if _of_genes(modalities[name]) and found[name].n_vars > n_top_genes]
    if not chosen:
        msg = (
            f"n_top_genes={n_top_genes}, but no modality with counts of genes (nb, zinb, poisson) has more. Leave it "
            "out."
        )
        raise ValueError(msg)
    for name in chosen:
        adata, likelihood = found[name], modalities[name]
        own = inputs.obs_of(adata)
        if key is not None:
            with inputs.told_whose(mdata, mdata):
                batches = record.column_of(inputs.obs_of(mdata), key, "batch_key")
            adata.obs = own.assign(**{key: batches.reindex(own.index)})
        with inputs.named(name):
            select(adata, asked | {"gene_likelihood": likelihood})
        adata.obs = own


def _of_genes(gene_likelihood: str) -> bool:
    """Whether scanpy's choice makes sense of what has such counts: not of peaks, nor of proteins."""
    known = LIKELIHOODS.get(gene_likelihood)
    return known is not None and known.has_library and not known.thresholded


def fitted_genes(adata: AnnData, key: str, layer: str | None, what: str = "genes", *, on_disk: bool = False) -> str:
    """A sentence on how many were fitted, and how many of them have no counts.

    Those that stay `on_disk` are not read once more for it.
    """
    import pandas as pd

    from sc_ldvae import inputs, record
    from sc_ldvae.counts import gene_totals

    genes = record.read(adata, key).genes
    if on_disk:
        return f"Fitted {len(genes):,} {what}."
    source = inputs.counts_of(adata, layer, adata.var_names.get_indexer(pd.Index(genes)), may_be_empty=True)
    without = int((gene_totals(source, np.arange(adata.n_obs)) == 0).sum())
    return f"Fitted {len(genes):,} {what}; {without:,} of them have no counts."
