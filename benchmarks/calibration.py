"""Known answers: do intervals hold the true loadings, and is the true number of factors recommended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

import sc_ldvae
from benchmarks import tables

if TYPE_CHECKING:
    from benchmarks.runs import Session

SETTINGS: dict[str, dict[str, Any]] = {
    "2,000 cells x 500 genes, 5 factors": {"n_obs": 2000, "n_vars": 500, "n_latent": 5},
    "5,000 x 1,000, 5 factors": {"n_obs": 5000, "n_vars": 1000, "n_latent": 5},
    "20,000 x 1,000, 6 factors": {"n_obs": 20000, "n_vars": 1000, "n_latent": 6},
    "1,500 x 1,000, 8 factors, 500 counts per cell": {
        "n_obs": 1500,
        "n_vars": 1000,
        "n_latent": 8,
        "mean_library": 500,
    },
    "2,000 x 500, 4 factors, 3 batches": {"n_obs": 2000, "n_vars": 500, "n_latent": 4, "n_batches": 3},
    "2,000 x 500, 4 factors, Poisson": {"n_obs": 2000, "n_vars": 500, "n_latent": 4, "gene_likelihood": "poisson"},
    "2,000 x 500, 4 factors, zinb": {"n_obs": 2000, "n_vars": 500, "n_latent": 4, "gene_likelihood": "zinb"},
}
# Sizes of the sets with 4, 5, ... factors in turn.
_SIZES = ((1500, 500), (3000, 1000), (1000, 300))
_FACTORS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 6)
_GRID = tuple(range(2, 17))
_NORMAL = 1.96


def calibration(session: Session) -> None:
    """Run what has not been run, then write the tables."""
    coverage = []
    for title, setting in SETTINGS.items():
        runs = [
            session.remembered(
                "coverage",
                f"{title}.{seed}".replace(" ", "_"),
                "benchmarks.calibration:coverage",
                setting=setting | {"rng": seed},
                threads=session.threads,
            )
            for seed in range(3)
        ]
        values = np.concatenate([run["coverage"] for run in runs if run is not None])
        coverage.append(
            {"simulation": title, "coverage": values.mean(), "worst factor": values.min(), "best factor": values.max()}
        )
    notes = "Share of the true loadings within the 95 % interval: mean over factors and three simulations."
    tables.write(session, "coverage", "Intervals of loadings", pd.DataFrame(coverage), notes)
    selected = [
        session.remembered(
            "selected",
            f"{i}",
            "benchmarks.calibration:selected",
            n_latent=n,
            size=_SIZES[i % len(_SIZES)],
            rng=100 + i,
            threads=session.threads,
        )
        for i, n in enumerate(_FACTORS)
    ]
    table = pd.DataFrame([run for run in selected if run is not None]).drop(columns="process_seconds")
    tables.write(session, "selected", "Recommended numbers of factors", table, f"Out of {_GRID[0]} to {_GRID[-1]}.")


def coverage(setting: dict[str, Any], threads: int) -> dict[str, Any]:
    """Share of the genes whose true loading the interval holds, per factor that did not vanish."""
    torch.set_num_threads(threads)
    adata = sc_ldvae.datasets.simulate(**setting)
    likelihood = setting.get("gene_likelihood", "nb")
    batch_key = "batch" if "n_batches" in setting else None
    sc_ldvae.tl.ldvae(adata, gene_likelihood=likelihood, batch_key=batch_key, progress=False)
    left = adata.varm["ldvae_loadings"].any(0)
    errors = adata.varm["ldvae_loadings_se"][:, left].astype(float)
    weights = 1 / (errors**2).mean(1)
    loadings = adata.varm["ldvae_loadings"][:, left], adata.varm["true_loadings"]
    found, truth = (_centred(one, weights) for one in loadings)
    # Scale and rotation of the factors are the prior's affair.
    root = np.sqrt(weights)[:, None]
    basis = np.linalg.lstsq(root * truth, root * found, rcond=None)[0]
    return {"coverage": (np.abs(found - truth @ basis) < _NORMAL * errors).mean(0).tolist()}


def _centred(loadings: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return loadings.astype(float) - np.average(loadings, axis=0, weights=weights)


def selected(n_latent: int, size: tuple[int, int], rng: int, threads: int) -> dict[str, Any]:
    """The recommended number of factors beside the true one."""
    torch.set_num_threads(threads)
    adata = sc_ldvae.datasets.simulate(*size, n_latent=n_latent, rng=rng)
    sc_ldvae.tl.select_n_latent(adata, _GRID, n_seeds=1, progress=False)
    result = adata.uns["ldvae_n_latent"]
    return {
        "cells": size[0],
        "genes": size[1],
        "true": n_latent,
        "recommended": result["recommended"],
        "come back, of 16": float(result["n_stable"][-1]),
    }
