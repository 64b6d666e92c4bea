"""Held-out fit, cell types and marker genes on PBMC 3k, over seeds.

``python -m benchmarks.quality pbmc3k.h5ad`` needs raw counts in X and the cell types in obs['louvain']. The held-out
cells are ``np.random.default_rng(0).permutation(n_obs)[: n_obs // 10]``; the genes, of those seen in 3 cells, the 2,000
most variable ones.
"""

from __future__ import annotations

import argparse
import time
import warnings

import anndata as ad
import pandas as pd
import scanpy as sc
import torch

import sc_ldvae
from benchmarks import machine
from benchmarks.data import mark
from benchmarks.downstream import label_accuracy

MARKERS = {"B cells": ["CD79A", "MS4A1"], "monocytes": ["LYZ", "S100A8", "S100A9"], "cytotoxic": ["NKG7", "GNLY"]}
N_GENES = 2000


def marker_ranks(adata: ad.AnnData) -> pd.DataFrame:
    """Factor and side on which each group of markers stands highest, with the markers' ranks there."""
    loadings = sc_ldvae.get.loadings(adata)
    ranks = pd.concat({"+": loadings.rank(ascending=False), "-": loadings.rank()}, axis=1).astype(int)
    best = {group: ranks.loc[genes].max().idxmin() for group, genes in MARKERS.items()}
    rows = {group: {"factor": f"{best[group][1]}{best[group][0]}"} for group in MARKERS}
    for group, genes in MARKERS.items():
        rows[group]["ranks"] = ", ".join(f"{gene} {ranks.loc[gene, best[group]]}" for gene in genes)
    return pd.DataFrame.from_dict(rows, orient="index")


def main() -> None:
    """Print one table over seeds and the markers of the last fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    adata = mark(ad.read_h5ad(asked.counts), N_GENES)
    rows = []
    for seed in range(asked.seeds):
        start = time.perf_counter()
        sc_ldvae.tl.ldvae(adata, train_size="train", rng=seed, progress=False)
        seconds = time.perf_counter() - start
        accuracy = label_accuracy(adata.obsm["X_ldvae"], adata.obs["louvain"])
        rows.append({"seconds": seconds, "elbo_held_out": adata.uns["ldvae"]["elbo_held_out"], "accuracy": accuracy})
    table = pd.DataFrame(rows)
    table.loc["median"] = table.median()

    normalised = adata.copy()
    sc.pp.normalize_total(normalised)
    sc.pp.log1p(normalised)
    sc.pp.pca(normalised, n_comps=10)
    print(machine.description(torch.get_num_threads()))
    print(table.round(4).to_string())
    print(f"accuracy on 10 principal components: {label_accuracy(normalised.obsm['X_pca'], adata.obs['louvain']):.4f}")
    print(marker_ranks(adata).to_string())


if __name__ == "__main__":
    main()
