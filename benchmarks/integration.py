"""Two studies of the same cell types: how well they mix, and how well the cell types are kept."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

import sc_ldvae
from benchmarks import downstream, tables

if TYPE_CHECKING:
    from benchmarks.runs import Session

_FILE, _BATCH, _LABEL, _N_GENES = "lung_2studies_6donors.h5ad", "study", "cell_type", 2000
_NEIGHBOURS, _PERPLEXITY = 90, 30
METHODS = {
    "ldvae_batch": "sc-ldvae, batch_key",
    "ldvae": "sc-ldvae, no batch",
    "linear_scvi_batch": "LinearSCVI, batch_key",
    "pca_10": "PCA, 10 components",
    "pca_50": "PCA, 50 components",
}
_SEEDS = {"ldvae_batch": 3, "ldvae": 3}


def integration(session: Session) -> None:
    """Run what has not been run, then write the table."""
    if session.data is None or not (session.data / _FILE).exists():
        print(f"integration is left out: there is no file {_FILE} in the data folder ({session.data}).")
        return
    rows = []
    for method, title in METHODS.items():
        for seed in range(_SEEDS.get(method, 1)):
            request = {"path": str(session.data / _FILE), "method": method, "seed": seed, "threads": session.threads}
            result = session.remembered("integration", f"{method}.{seed}", "benchmarks.integration:run", **request)
            if result is not None:
                rows.append({"method": title} | result)
    table = pd.DataFrame(rows).groupby("method", sort=False).median().reset_index().drop(columns="process_seconds")
    notes = (
        "Two studies of the lung, cell types that both have; medians over seeds (three of ours). scib formulas: iLISI "
        "and cLISI (perplexity 30), silhouettes from 0 to 1, larger is better. Foreign neighbours: share of the other "
        "study among 15 neighbours over what chance would give, within cell types. Accuracy: of cell types, by them."
    )
    tables.write(session, "integration", "Two studies", table, notes)


def run(path: str, method: str, seed: int, threads: int) -> dict[str, float]:
    """One latent and its scores."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.highly_variable_genes(adata, n_top_genes=_N_GENES, flavor="seurat_v3")
    adata = adata[:, adata.var["highly_variable"]].copy()
    latent = _latent(adata, method, seed)
    types = pd.crosstab(adata.obs[_LABEL], adata.obs[_BATCH])
    shared = adata.obs[_LABEL].isin(types.index[(types > 0).all(axis=1)]).to_numpy()
    obs = adata.obs[shared]
    return scores(latent[shared], obs[_BATCH].astype(str), obs[_LABEL].astype(str))


def _latent(adata: ad.AnnData, method: str, seed: int) -> np.ndarray:
    if method.startswith("ldvae"):
        batch_key = _BATCH if method.endswith("batch") else None
        sc_ldvae.tl.ldvae(adata, batch_key=batch_key, rng=seed, progress=False)
        return adata.obsm["X_ldvae"]
    if method.startswith("pca"):
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        sc.pp.pca(adata, n_comps=int(method.split("_")[1]))
        return adata.obsm["X_pca"]
    import scvi

    logging.getLogger("lightning").setLevel(logging.ERROR)
    scvi.settings.seed = seed
    scvi.model.LinearSCVI.setup_anndata(adata, batch_key=_BATCH)
    model = scvi.model.LinearSCVI(adata, n_latent=10)
    model.train(enable_progress_bar=False, accelerator="cpu")
    return model.get_latent_representation()


def scores(latent: np.ndarray, batch: pd.Series, label: pd.Series) -> dict[str, Any]:
    """Mixing of the batches, then conservation of the labels."""
    batches, labels = batch.to_numpy(), label.to_numpy()
    distances, neighbours = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(latent).kneighbors(latent)
    distances, neighbours = distances[:, 1:], neighbours[:, 1:]
    weights = np.array([_perplexity_weights(row) for row in distances])
    n_batches, n_labels = len(set(batches)), len(set(labels))
    return {
        "iLISI": float((np.median(_lisi(weights, batches[neighbours])) - 1) / (n_batches - 1)),
        "batch silhouette": _batch_silhouette(latent, batches, labels),
        "foreign neighbours": _foreign(neighbours[:, :15], batches, labels),
        "cLISI": float((n_labels - np.median(_lisi(weights, labels[neighbours]))) / (n_labels - 1)),
        "label silhouette": float((silhouette_samples(latent, labels).mean() + 1) / 2),
        "accuracy": downstream.label_accuracy(latent, label),
    }


def _perplexity_weights(distances: np.ndarray) -> np.ndarray:
    """Gaussian weights of the neighbours of one cell whose perplexity is 30, by bisection."""
    low, high, wanted = 0.0, np.inf, np.log(_PERPLEXITY)
    precision = 1.0 / max(float(np.mean(distances)), 1e-12)
    weights = np.ones(len(distances))
    for _ in range(60):
        weights = np.exp(-precision * (distances - distances.min()))
        weights /= weights.sum()
        entropy = -np.sum(weights * np.log(np.maximum(weights, 1e-300)))
        low, high = (precision, high) if entropy > wanted else (low, precision)
        precision = precision * 2 if np.isinf(high) else (low + high) / 2
    return weights


def _lisi(weights: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Inverse Simpson index of the kinds among each cell's neighbours (Korsunsky et al. 2019)."""
    shares = [(weights * (kinds == kind)).sum(1) for kind in np.unique(kinds)]
    return 1 / np.sum(np.square(shares), axis=0)


def _batch_silhouette(latent: np.ndarray, batches: np.ndarray, labels: np.ndarray) -> float:
    """Mean over labels of one less the absolute silhouette of the batches (Luecken et al. 2022)."""
    values = []
    for label in np.unique(labels):
        own = labels == label
        n_batches = len(set(batches[own]))
        if 1 < n_batches < own.sum():
            values.append(np.mean(1 - np.abs(silhouette_samples(latent[own], batches[own]))))
    return float(np.mean(values))


def _foreign(neighbours: np.ndarray, batches: np.ndarray, labels: np.ndarray) -> float:
    """Share of other batches among neighbours of the same label, over the share that chance gives; mean over labels."""
    ratios = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        same = labels[neighbours[own]] == label
        foreign = same & (batches[neighbours[own]] != batches[own][:, None])
        expected = np.mean([(batches[own] != batch).mean() for batch in batches[own]])
        if same.any() and expected > 0:
            ratios.append(foreign.sum() / same.sum() / expected)
    return float(np.mean(ratios))
