"""What the adaptive prior keeps: held-out fit, factors left and labels beside fits that keep all, known truths."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

import sc_ldvae
from benchmarks import tables
from benchmarks.data import prepared
from benchmarks.downstream import cluster_agreement, label_accuracy

if TYPE_CHECKING:
    from benchmarks.runs import Session

_DATA = ("pbmc3k", "kang", "marrow", "lung", "pbmc10k_4000")
_SIMULATED: dict[str, dict[str, Any]] = {
    "simulated nb, 3 batches": {"n_batches": 3},
    "simulated zinb": {"gene_likelihood": "zinb"},
    "simulated Poisson": {"gene_likelihood": "poisson"},
}
_SIZE = {"n_obs": 2000, "n_vars": 500, "n_latent": 5}
# Number of factors and prior of each fit; the others are compared with the second.
SETTINGS: tuple[tuple[int, str | None], ...] = (
    (10, None),
    (20, None),
    (10, "adaptive"),
    (20, "adaptive"),
    (30, "adaptive"),
)
_OF_LABELS = {
    "ari_X_ldvae": "ARI",
    "knn_X_ldvae": "kNN",
    "ari_principal": "ARI, principal axes",
    "knn_principal": "kNN, principal axes",
}
_BASE = 1
_N_SEEDS, _N_RECOVERED, _N_FITTED = 3, 10, 15


def selection(session: Session) -> None:
    """Run what has not been run, then write the tables."""
    rows = [
        _row(session, name, {"path": str(path)})
        for name in _DATA
        if (path := prepared(name, session.data, session.out))
    ]
    rows += [_row(session, name, {"simulation": setting}) for name, setting in _SIMULATED.items()]
    notes = (
        f"Means of {_N_SEEDS} seeds, which share the held-out cells of the real data; medians of ARI and kNN. Change: "
        f"of the held-out ELBO against {SETTINGS[_BASE][0]} factors without a prior, in per cent; positive is better. "
        "Labels of the training cells."
    )
    table = pd.DataFrame([row for per_data in rows for row in per_data])
    tables.write(session, "selection", "Fits with and without the adaptive prior", table, notes)
    recovered = [
        {"likelihood": likelihood, "batches": n_batches} | _recovered(session, likelihood, n_batches)
        for likelihood in ("nb", "zinb", "poisson")
        for n_batches in (1, 3)
    ]
    notes = (
        f"{_N_RECOVERED} simulations each of {_SIZE['n_obs']} cells, {_SIZE['n_vars']} genes and {_SIZE['n_latent']} "
        f"factors, fitted with {_N_FITTED}. Cosines: of the worst true factor of each simulation, median and least."
    )
    tables.write(session, "recovered", "True factors", pd.DataFrame(recovered), notes)


def _row(session: Session, name: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each setting."""
    rows = []
    for n_latent, prior in SETTINGS:
        fits = [
            session.remembered(
                "selection",
                f"{name}.{n_latent}.{prior}.{seed}".replace(" ", "_").replace(",", ""),
                "benchmarks.selection:fitted",
                n_latent=n_latent,
                prior=prior,
                seed=seed,
                threads=session.threads,
                **request,
            )
            for seed in range(_N_SEEDS)
        ]
        found = pd.DataFrame([fit for fit in fits if fit is not None])
        rows.append({"data": name, "n_latent": n_latent, "prior": prior or "None"} | _means(found))
    base = rows[_BASE]["held-out ELBO"]
    return [row | {"change, %": 100 * (row["held-out ELBO"] - base) / abs(base)} for row in rows]


def _means(found: pd.DataFrame) -> dict[str, Any]:
    return {
        "held-out ELBO": found["elbo"].mean(),
        "left": ", ".join(map(str, sorted(found["left"]))),
        **{title: found[column].median() for column, title in _OF_LABELS.items() if column in found},
    }


def fitted(
    n_latent: int,
    prior: str | None,
    seed: int,
    threads: int,
    path: str | None = None,
    simulation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One fit in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    options: dict[str, Any] = {"n_latent": n_latent, "loadings_prior": prior, "rng": seed, "progress": False}
    if path is not None:
        adata = ad.read_h5ad(path)
        options["train_size"] = "train"
    else:
        simulation = simulation or {}
        adata = sc_ldvae.datasets.simulate(**_SIZE, **simulation, rng=seed)
        options["gene_likelihood"] = simulation.get("gene_likelihood", "nb")
        options["batch_key"] = "batch" if "n_batches" in simulation else None
    sc_ldvae.tl.ldvae(adata, **options)
    result: dict[str, Any] = {
        "elbo": float(adata.uns["ldvae"]["elbo_held_out"]),
        "left": int((~sc_ldvae.get.factors(adata)["vanished"]).sum()),
    }
    if "label" in adata.obs:
        sc_ldvae.tl.rotate(adata, "principal", key_added="principal")
        trained = adata[adata.obs["train"]]
        for name in ("X_ldvae", "principal"):
            latent, labels = trained.obsm[name], trained.obs["label"]
            result[f"ari_{name}"] = cluster_agreement(latent, labels)
            result[f"knn_{name}"] = label_accuracy(latent, labels)
    return result


def _recovered(session: Session, likelihood: str, n_batches: int) -> dict[str, Any]:
    found = [
        session.remembered(
            "recovered",
            f"{likelihood}.{n_batches}.{seed}",
            "benchmarks.selection:recovered",
            simulation={"gene_likelihood": likelihood, "n_batches": n_batches},
            seed=seed,
            threads=session.threads,
        )
        for seed in range(_N_RECOVERED)
    ]
    table = pd.DataFrame([one for one in found if one is not None])
    left = table["left"].value_counts().sort_index()
    return {
        "left": ", ".join(f"{number} ({n} times)" for number, n in left.items()),
        "space": f"{table['space'].median():.3f}, {table['space'].min():.3f}",
        "varimax": f"{table['varimax'].median():.3f}, {table['varimax'].min():.3f}",
        "axes": f"{table['axes'].median():.3f}, {table['axes'].min():.3f}",
    }


def recovered(simulation: dict[str, Any], seed: int, threads: int) -> dict[str, Any]:
    """Least cosine of a true factor with the space of those found, with its match among them, and after varimax."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = sc_ldvae.datasets.simulate(**_SIZE, **simulation, rng=100 + seed)
    options: dict[str, Any] = {"gene_likelihood": simulation["gene_likelihood"], "rng": seed, "progress": False}
    sc_ldvae.tl.ldvae(adata, _N_FITTED, batch_key="batch" if simulation["n_batches"] > 1 else None, **options)
    truth = adata.varm["true_loadings"] / np.linalg.norm(adata.varm["true_loadings"], axis=0)
    left = sc_ldvae.get.factors(adata).query("not vanished").index.tolist()
    found = sc_ldvae.get.loadings(adata, left).to_numpy(np.float64)
    turned = sc_ldvae.get.loadings(adata, left, rotation="varimax").to_numpy(np.float64)
    return {
        "left": found.shape[1],
        "space": float(np.linalg.norm(np.linalg.qr(found)[0].T @ truth, axis=0).min()),
        "varimax": _least_cosine(truth, turned),
        "axes": _least_cosine(truth, found),
    }


def _least_cosine(truth: np.ndarray, found: np.ndarray) -> float:
    cosines = np.abs(truth.T @ (found / np.linalg.norm(found, axis=0)))
    return float(cosines[linear_sum_assignment(-cosines)].min())
