"""Tasks after the fit, on the same weights in both packages: differential expression and normalised expression."""

from __future__ import annotations

import time
import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

import sc_ldvae
from benchmarks import machine, tables
from benchmarks.data import prepared

if TYPE_CHECKING:
    from benchmarks.runs import Session

PACKAGES = {"sc_ldvae": "sc-ldvae", "scvi": "scvi-tools"}
TASKS = {
    "comparison": "differential expression of all groups",
    "expression": "normalised expression",
    "expression_10": "normalised expression, 10 draws",
}
_DELTA = 0.25


def tasks(session: Session, name: str = "pbmc3k", repeats: int = 3) -> None:
    """Fit once, run every task in a process of its own, write the table."""
    path = prepared(name, session.data, session.out)
    if path is None:
        return
    session.call("benchmarks.tasks:fit_once", path=str(path))
    rows = []
    for (task, what), (package, who), i in product(TASKS.items(), PACKAGES.items(), range(repeats)):
        request = {"path": str(path), "task": task, "package": package, "threads": session.threads}
        result = session.remembered("tasks", f"{name}.{task}.{package}.{i}", "benchmarks.tasks:run", **request)
        if result is not None:
            rows.append({"task": what, "package": who} | result)
    table = pd.DataFrame(rows).groupby(["task", "package"], sort=False).median().reset_index()
    same = session.remembered("tasks", f"{name}.agreement", "benchmarks.tasks:agreement", path=str(path)) or {}
    notes = (
        f"{name}, groups by obs['label']. Medians of {repeats} processes; the second call in each. The same weights: "
        "scvi-tools has those of io.to_scvi. Memory: peak of the process, and beyond what it held before the call. "
        f"Correlation between the two: fold changes {same.get('fold_changes')} and probabilities "
        f"{same.get('probabilities')} in the worst group, log expression of 10 draws each {same.get('log_expression')}."
    )
    tables.write(
        session, "tasks", "After the fit", table.drop(columns="process_seconds").rename(columns=_TITLES), notes
    )


_TITLES = {"seconds": "s", "peak_megabytes": "peak MB", "extra_megabytes": "MB beyond"}


def fit_once(path: str) -> dict[str, Any]:
    """Fit and write the object that both packages start from, unless it is there; compile what is measured."""
    fitted = _fitted(path)
    if not fitted.exists():
        adata = ad.read_h5ad(path)
        sc_ldvae.tl.ldvae(adata, n_latent=10, loadings_prior=None, train_size="train", progress=False)
        adata.write_h5ad(fitted)
    return {}


def run(path: str, task: str, package: str, threads: int) -> dict[str, float]:
    """Time the second call of a task, and its memory."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    call = _CALLS[package](ad.read_h5ad(_fitted(path)), task)
    call()
    machine.forget_peak()
    before, start = machine.resident_megabytes(), time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    peak = machine.peak_megabytes()
    return {"seconds": seconds, "peak_megabytes": peak, "extra_megabytes": peak - before}


def agreement(path: str) -> dict[str, float]:
    """Worst correlation over groups, at the same pseudocounts, and that of the expression of all cells and genes."""
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(_fitted(path))
    model = sc_ldvae.io.to_scvi(adata)
    _ours(adata, "comparison")()
    epsilon = adata.uns["rank_genes_groups"]["params"]["pseudocount"]
    options = {"mode": "change", "delta": _DELTA, "pseudocounts": epsilon, "silent": True}
    theirs = model.differential_expression(groupby="label", **options)
    # Their fold changes have a thousandth of the pseudocount that their probabilities have.
    less = {"pseudocount": epsilon / 1000, "key_added": "less", "progress": False}
    sc_ldvae.tl.differential_expression(adata, "label", delta=_DELTA, **less)
    lfc, probability = [], []
    for group, frame in theirs.groupby("group1"):
        own, own_less = (
            sc_ldvae.get.differential_expression(adata, group, key=k) for k in ("rank_genes_groups", "less")
        )
        lfc.append(own_less["logfoldchanges"].loc[frame.index].corr(frame["lfc_mean"]))
        probability.append(own["proba_de"].loc[frame.index].corr(frame["proba_de"]))
    own, other = _ours(adata, "expression_10")().to_numpy(), _scvi(adata, "expression_10")().to_numpy()
    logs = np.corrcoef(np.log(own).ravel(), np.log(other).ravel())[0, 1]
    return {
        "fold_changes": round(min(lfc), 4),
        "probabilities": round(min(probability), 4),
        "log_expression": round(float(logs), 4),
    }


def _ours(adata: ad.AnnData, task: str) -> Any:  # noqa: ANN401  a call of a task
    if task == "comparison":
        return lambda: sc_ldvae.tl.differential_expression(adata, "label", delta=_DELTA, progress=False)
    n_samples = None if task == "expression" else 10
    return lambda: sc_ldvae.tl.normalized_expression(adata, n_samples=n_samples, progress=False)


def _scvi(adata: ad.AnnData, task: str) -> Any:  # noqa: ANN401  a call of a task
    model = sc_ldvae.io.to_scvi(adata)
    if task == "comparison":
        return lambda: model.differential_expression(groupby="label", mode="change", delta=_DELTA, silent=True)
    n_samples = 1 if task == "expression" else 10
    return lambda: model.get_normalized_expression(n_samples=n_samples)


_CALLS = {"sc_ldvae": _ours, "scvi": _scvi}


def _fitted(path: str) -> Path:
    return Path(path).with_suffix(".fitted.h5ad")
