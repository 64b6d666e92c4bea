"""Whether factors come back from other seeds and other cells, and whether `tl.stability` says which will."""

from __future__ import annotations

import logging
import time
import warnings
from itertools import combinations
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from scipy.stats import spearmanr

import sc_ldvae
from benchmarks import figures, tables
from benchmarks.data import prepared
from sc_ldvae import assess, record

if TYPE_CHECKING:
    from benchmarks.runs import Session

_N_LATENT = 10
TITLES = {"ldvae": "sc-ldvae", "ldvae_5": "sc-ldvae, 5 factors", "linear_scvi": "LinearSCVI", "pca": "PCA"}
# Refits of each method, by what differs between them.
REFITS = {
    "ldvae": {"seeds": 6, "halves": 6, "bootstrap": 6},
    "ldvae_5": {"seeds": 6, "halves": 6, "bootstrap": 6},
    "linear_scvi": {"seeds": 3, "halves": 4},
    "pca": {"seeds": 2, "halves": 6, "bootstrap": 6},
}
_DATA, PREDICTED = "pbmc3k", ("pbmc3k", "kang", "marrow", "lung", "pbmc10k_4000")
# Number of factors and prior of the fits whose scores are shown: the default, and one in which all factors stay.
_SCORED: dict[str, tuple[int, str | None]] = {"default": (20, "adaptive"), "all stay": (_N_LATENT, None)}


def stability(session: Session) -> None:
    """Run what has not been run, then write the tables."""
    _beside(session)
    _scores(session)
    _prediction(session)
    _battery(session)


def _beside(session: Session) -> None:
    """Every method's refits of one data set, matched with each other."""
    path = prepared(_DATA, session.data, session.out)
    if path is None:
        return
    rows = []
    for method, kinds in REFITS.items():
        for kind, n in kinds.items():
            fits = [
                session.remembered(
                    "stability",
                    f"{method}.{kind}.{i}",
                    "benchmarks.stability:refit",
                    path=str(path),
                    method=method,
                    differ=kind,
                    index=i,
                    threads=session.threads,
                )
                for i in range(n)
            ]
            loadings = [np.array(one["loadings"]) for one in fits if one is not None]
            if len(loadings) == n:
                weights = np.array(fits[0]["information"])
                rows.append({"method": TITLES[method], "refits differ in": kind} | _cosines(loadings, kind, weights))
    notes = (
        f"{_DATA}, 2000 genes, {_N_LATENT} factors unless said. Mean absolute cosine between the loadings of refits, "
        "matched by the Hungarian method: genes weighted by how well they are measured (Fisher information), or all "
        "alike; centred. Halves are disjoint. PCA is of log-normalised counts; its loadings are small for rare "
        "genes already: its weights are equal in both columns."
    )
    tables.write(session, "stability", "Factors that come back", pd.DataFrame(rows), notes)


def _cosines(fits: list[np.ndarray], kind: str, weights: np.ndarray) -> dict[str, Any]:
    pairs = list(combinations(range(len(fits)), 2))
    if kind == "halves":
        pairs = [(i, i + 1) for i in range(0, len(fits), 2)]
    result: dict[str, Any] = {}
    for name, used in (("weighted", weights), ("unweighted", np.ones_like(weights))):
        units = [assess.directions(one, used) for one in fits]
        values = np.array([np.sort(np.abs(assess.matched(units[i], units[j])[1]))[::-1] for i, j in pairs])
        result[name] = float(values.mean())
        if name == "weighted":
            result["best to worst"] = " ".join(f"{value:.2f}" for value in values.mean(0))
    return result


def refit(path: str, method: str, differ: str, index: int, threads: int) -> dict[str, Any]:
    """Loadings of one fit, and the weights of the genes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    information = _information(adata)
    adata = adata[_cells(adata.n_obs, differ, index)].copy()
    adata.obs_names_make_unique()
    if method == "pca":
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.pca(adata, n_comps=_N_LATENT, random_state=index)
        loadings, information = adata.varm["PCs"], np.ones(adata.n_vars)
    elif method == "linear_scvi":
        loadings = _linear_scvi(adata, index)
    else:
        sc_ldvae.tl.ldvae(
            adata, 5 if method == "ldvae_5" else _N_LATENT, loadings_prior=None, rng=index, progress=False
        )
        loadings = adata.varm["ldvae_loadings"]
    return {"loadings": loadings.astype(float).tolist(), "information": information.tolist()}


def _cells(n_obs: int, kind: str, index: int) -> np.ndarray:
    if kind == "seeds":
        return np.arange(n_obs)
    if kind == "bootstrap":
        return np.sort(np.random.default_rng(index).integers(n_obs, size=n_obs))
    order = np.random.default_rng(index // 2).permutation(n_obs)
    return np.sort(order[index % 2 :: 2])


def _information(adata: ad.AnnData) -> np.ndarray:
    """Fisher information of an average cell about each gene, the same for every method: with theta 1 for every gene."""
    mean = np.asarray(adata.X.mean(0)).ravel()
    return mean / (1 + mean)


def _linear_scvi(adata: ad.AnnData, seed: int) -> np.ndarray:
    import scvi

    logging.getLogger("lightning").setLevel(logging.ERROR)
    scvi.settings.seed = seed
    scvi.model.LinearSCVI.setup_anndata(adata)
    model = scvi.model.LinearSCVI(adata, n_latent=_N_LATENT)
    model.train(enable_progress_bar=False, accelerator="cpu")
    return model.get_loadings().to_numpy()


def _scores(session: Session) -> None:
    """Scores of the factors that are left, and of those of a fit in which all stay."""
    rows = []
    for name in PREDICTED:
        path = prepared(name, session.data, session.out)
        for title, (n_latent, prior) in _SCORED.items() if path is not None else ():
            request = {"path": str(path), "n_latent": n_latent, "prior": prior, "threads": session.threads}
            result = session.remembered("scores", f"{name}.{n_latent}", "benchmarks.stability:scored", **request)
            if result is not None:
                found = np.array(result["score"])
                row = {"factors": len(found), "mean": found.mean(), "least": found.min()}
                listed = " ".join(f"{value:.2f}" for value in found)
                rows.append({"data": name, "fit": title} | row | {"largest explained deviance first": listed})
    notes = (
        f"Scores of tl.stability (10 refits, halves) of fits by default, and of {_N_LATENT} factors that all stay "
        "(loadings_prior=None)."
    )
    tables.write(session, "scores", "Scores", pd.DataFrame(rows), notes)


def scored(path: str, n_latent: int, prior: str | None, threads: int, n_seeds: int = 10) -> dict[str, Any]:
    """Score of each factor that did not vanish."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    sc_ldvae.tl.ldvae(adata, n_latent, loadings_prior=prior, progress=False)
    sc_ldvae.tl.stability(adata, n_seeds, progress=False)
    return {"score": sc_ldvae.get.stability(adata)["score"].tolist()}


def _prediction(session: Session) -> None:
    """The score within one half of the cells, against what the other half gives."""
    rows = []
    for name in PREDICTED:
        path = prepared(name, session.data, session.out)
        for half in range(2) if path is not None else ():
            request = {"path": str(path), "half": half, "threads": session.threads}
            result = session.remembered("prediction", f"{name}.{half}", "benchmarks.stability:predict", **request)
            if result is not None:
                factors = zip(result["score"], result["cosine"], result["explained"], strict=True)
                rows += [{"data": name, "half": half, "score": s, "cosine": c, "explained": e} for s, c, e in factors]
    if not rows:
        return
    table = pd.DataFrame(rows)
    table.to_csv(session.out / "prediction_factors.csv", index=False)
    summary = [
        {
            "data": name,
            "factors": len(part),
            "rank correlation": float(spearmanr(part["score"], part["cosine"])[0]),
            "of explained deviance": float(spearmanr(part["explained"], part["cosine"])[0]),
            "mean error": float((part["score"] - part["cosine"]).mean()),
            "mean absolute error": float((part["score"] - part["cosine"]).abs().mean()),
            "cosine where score > 0.8": float(part.loc[part["score"] > 0.8, "cosine"].mean()),  # noqa: PLR2004
            "cosine where score < 0.5": float(part.loc[part["score"] < 0.5, "cosine"].mean()),  # noqa: PLR2004
        }
        for name, part in [*table.groupby("data", sort=False), ("all", table)]
    ]
    notes = (
        "Score of tl.stability (10 refits) from one half of the cells, against the cosine of the factor with its match "
        "in a fit to the other half, which nothing of the score has seen; either half in turn."
    )
    tables.write(session, "prediction", "What the score predicts", pd.DataFrame(summary), notes)
    figures.prediction(table, session.out / "prediction.png")


def predict(path: str, half: int, threads: int, n_seeds: int = 10) -> dict[str, Any]:
    """Score of each factor of one half of the cells, and its cosine with what the other half gives."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    own, other = (adata[_cells(adata.n_obs, "halves", i)].copy() for i in (half, 1 - half))
    for one in (own, other):
        sc_ldvae.tl.ldvae(one, _N_LATENT, loadings_prior=None, progress=False)
    sc_ldvae.tl.stability(own, n_seeds, progress=False)
    information = assess.gene_information(record.read(own).decoder, float(own.obs["ldvae_library"].mean()))
    units = [assess.directions(one.varm["ldvae_loadings"], information) for one in (own, other)]
    return {
        "score": own.uns["ldvae_stability"]["score"].tolist(),
        "cosine": np.abs(assess.matched(*units)[1]).tolist(),
        "explained": own.uns["ldvae"]["explained_deviance"].tolist(),
    }


def _battery(session: Session) -> None:
    path = prepared(_DATA, session.data, session.out)
    if path is None:
        return
    session.compile(path)
    request = {"path": str(path), "threads": session.threads}
    runs = [session.remembered("battery", f"{_DATA}.{i}", "benchmarks.stability:battery", **request) for i in range(3)]
    table = pd.DataFrame([run for run in runs if run is not None])
    columns = table.drop(columns="process_seconds").median().rename("seconds").rename_axis("what").reset_index()
    notes = f"{_DATA}, 2000 genes; medians of {len(table)} processes. All by default."
    tables.write(session, "battery", "Seconds of asking which factors to trust", columns, notes)


def battery(path: str, threads: int) -> dict[str, float]:
    """Seconds of a fit, of its stability, and of comparing 8 numbers of factors."""
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    steps = {
        "fit": lambda: sc_ldvae.tl.ldvae(adata, progress=False),
        "explained deviance": lambda: sc_ldvae.tl.explained_deviance(adata, "label", progress=False),
        "stability, 10 refits": lambda: sc_ldvae.tl.stability(adata, 10, progress=False),
        "select_n_latent, 8 values": lambda: sc_ldvae.tl.select_n_latent(adata, progress=False),
    }
    seconds = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    return seconds | {"all": sum(seconds.values())}
