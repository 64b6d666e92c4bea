"""Loadings of genes outside of a fit: seconds, and how near they are to those of a fit that has the genes."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch

import sc_ldvae
from benchmarks import tables
from benchmarks.data import prepared

if TYPE_CHECKING:
    from benchmarks.runs import Session

# Of each data set, as many of all genes as are fitted; those of whom a tenth is left out.
_DATA, _N_FITTED, _LEFT_OUT = ("pbmc3k_all_genes", "pbmc10k_4000", "kang", "marrow", "lung"), 2000, 0.1


def extend(session: Session) -> None:
    """Run what has not been run, then write the table."""
    rows = []
    for name in _DATA:
        path = prepared(name, session.data, session.out)
        if path is None:
            continue
        request = {"path": str(path), "repeats": 3, "threads": session.threads}
        result = session.remembered("extend", name, "benchmarks.extend:run", **request)
        if result is not None:
            rows.append({"data": name} | result)
    notes = (
        f"{_N_FITTED} variable genes are fitted. Seconds: of tl.extend for all others, the median of three calls after "
        "one for warming up. Correlations over loadings, genes weighted by their information (1 / standard error^2), "
        "factors of one fit as linear combinations of the other's: of a random tenth of the fitted genes, left out of "
        "a second fit and added by tl.extend; and of the genes that both have fitted, which is what two fits agree in."
    )
    tables.write(session, "extend", "Genes outside of a fit", pd.DataFrame(rows).drop(columns="process_seconds"), notes)


def run(path: str, repeats: int, threads: int) -> dict[str, float]:
    """Both numbers of one data set."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    if adata.n_vars > _N_FITTED:
        sc.pp.highly_variable_genes(adata, n_top_genes=_N_FITTED, flavor="seurat_v3")
    else:
        adata.var["highly_variable"] = True
    sc_ldvae.tl.ldvae(adata, train_size="train", progress=False)
    seconds = []
    if not adata.var["highly_variable"].all():
        for _ in range(1 + repeats):
            start = time.perf_counter()
            sc_ldvae.tl.extend(adata, progress=False)
            seconds.append(time.perf_counter() - start)
    part, draw = adata.copy(), np.random.default_rng(0)
    fitted = np.flatnonzero(part.var["highly_variable"])
    left_out = draw.permutation(fitted)[: int(_LEFT_OUT * len(fitted))]
    part.var.iloc[left_out, part.var.columns.get_loc("highly_variable")] = False
    sc_ldvae.tl.ldvae(part, train_size="train", progress=False)
    sc_ldvae.tl.extend(part, part.var_names[left_out].tolist(), progress=False)
    both = np.setdiff1d(fitted, left_out)
    return {
        "cells": adata.n_obs,
        "other genes": adata.n_vars - len(fitted),
        "seconds": float(np.median(seconds[1:])) if seconds else float("nan"),
        "correlation, left out": _correlation(adata, part, left_out),
        "correlation, in both": _correlation(adata, part, both),
    }


def _correlation(whole: ad.AnnData, part: ad.AnnData, genes: np.ndarray) -> float:
    left = ~sc_ldvae.get.factors(part)["vanished"].to_numpy()
    inputs = np.column_stack([part.obsm["X_ldvae"][:, left], np.ones(part.n_obs)])
    turn = np.linalg.lstsq(inputs, whole.obsm["X_ldvae"], rcond=None)[0][:-1]
    one, other = whole.varm["ldvae_loadings"][genes] @ turn.T, part.varm["ldvae_loadings"][genes][:, left]
    weights = part.varm["ldvae_loadings_se"][genes][:, left] ** -2.0
    one, other = (values - np.average(values, weights=weights, axis=0) for values in (one, other))
    return float((weights * one * other).sum() / np.sqrt((weights * one**2).sum() * (weights * other**2).sum()))
