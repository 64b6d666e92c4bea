"""Every method on every data set: seconds, memory, held-out fit, and what the latent is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import gmean

from benchmarks import figures, tables
from benchmarks.data import DATA_SETS, prepared
from benchmarks.methods import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.runs import Session

NAMES_OF_DATA = ("pbmc3k", "pbmc10k_1000", "pbmc10k_4000", "lung", "marrow")
# LinearSCVI runs for hundreds of epochs, ours for tens.
_EVERY = {"linear_scvi": 10, "linear_scvi_tutorial": 10}
# Once are enough of those that take minutes.
_ONCE = ("linear_scvi", "linear_scvi_tutorial", "glmpca")
_RUN_KEYS = ["data", "method"]
_MEDIANS = {
    "factors": "factors",
    "seconds": "seconds",
    "memory": "peak MB over torch and counts",
    "elbo": "held-out ELBO",
    "log_marginal": "held-out log-likelihood",
    "label_accuracy": "kNN accuracy",
    "cluster_agreement": "ARI",
}
_RATIOS = ["train() / time to match", "train() / call"]


def fit(
    session: Session,
    names: Sequence[str] = NAMES_OF_DATA,
    methods: Sequence[str] | None = None,
    repeats: int = 3,
    epochs: int | None = None,
) -> None:
    """Run what has not been run, then write all tables and the figure.

    Parameters
    ----------
    session
        Data, results, threads.
    names
        Data sets.
    methods
        Methods; by default the package's, its reference (LinearSCVI by the recipe of that data set), PCA and NMF, and
        where there are labels GLM-PCA.
    repeats
        Seeds, from 0 on; what takes minutes has the first one alone.
    epochs
        In place of every method's own number of epochs or iterations.
    """
    idle = session.idle_megabytes()
    rows = []
    for run in _requests(session, names, methods, repeats):
        result = session.fit("fit", f"{run['data']}.{run['method']}.{run['seed']}", **_request(run, epochs))
        if result is not None:
            memory = result["peak_megabytes"] - idle - result["counts_megabytes"]
            rows.append(run | result | {"memory": memory})
    if not rows:
        print("There is nothing to show: no data set was found.")
        return
    runs = pd.DataFrame(rows)
    _write_methods(session, runs)
    _write_match(session, runs)
    _write_cross_check(session, runs)
    figures.elbo(runs, session.out / "elbo.png")


def seconds_to(curve: list[dict[str, float]], target: float) -> float:
    """Seconds until a curve first reaches a held-out ELBO; NaN if it does not."""
    return next((point["seconds"] for point in curve if (point["elbo"] or -np.inf) >= target), np.nan)


def _requests(
    session: Session, names: Sequence[str], methods: Sequence[str] | None, repeats: int
) -> Iterator[dict[str, Any]]:
    paths = {name: prepared(name, session.data, session.out) for name in names}
    paths = {name: path for name, path in paths.items() if path is not None}
    if paths:
        session.compile(next(iter(paths.values())))
    for seed in range(repeats):
        for name, path in paths.items():
            chosen = methods or _default_methods(name)
            for method in (one for one in chosen if seed == 0 or one not in _ONCE):
                yield {"data": name, "method": method, "seed": seed, "path": str(path)}


def _default_methods(name: str) -> list[str]:
    chosen = DATA_SETS[name]
    return ["ldvae", chosen.reference, "pca", "nmf", *(["glmpca"] if chosen.label else [])]


def _request(run: dict[str, Any], epochs: int | None) -> dict[str, Any]:
    request = {key: run[key] for key in ("path", "method", "seed")}
    return request | {"epochs": epochs, "every": _EVERY.get(run["method"], 1)}


def _write_methods(session: Session, runs: pd.DataFrame) -> None:
    columns = [column for column in _MEDIANS if column in runs]
    groups = runs.groupby(_RUN_KEYS, sort=False)
    table = groups[columns].median().rename(columns=_MEDIANS)
    table.insert(0, "runs", groups.size())
    table = table.reset_index()
    table["method"] = table["method"].map(NAMES)
    notes = (
        "Medians over the runs. ELBO and importance-weighted log-likelihood (100 draws) in nats per held-out cell, by "
        "one evaluator. Labels: 15 nearest neighbours and the best Leiden clustering of the training cells' factors "
        "(PCA: the first 10 of 50 components). Seconds of PCA and NMF without normalisation."
    )
    tables.write(session, "methods", "Methods", table, notes)


def _write_match(session: Session, runs: pd.DataFrame) -> None:
    rows = []
    for name in runs["data"].unique():
        of_data = dict(list(runs[runs["data"] == name].groupby("method")))
        ours, reference = of_data.get("ldvae"), of_data.get(DATA_SETS[name].reference)
        if ours is not None and reference is not None:
            rows.append({"data": name} | _match(ours, reference, of_data.get("pca")))
    if not rows:
        return
    table = pd.DataFrame(rows)
    means = {column: gmean(table[column].dropna()) if table[column].notna().any() else np.nan for column in _RATIOS}
    table = pd.concat([table, pd.DataFrame([{"data": "geometric mean"} | means])], ignore_index=True)
    notes = (
        "Medians over the runs. Time to match: from the call, evaluations included, to the first epoch whose held-out "
        "ELBO is at least the reference's final one (empty: not reached). The reference's best ELBO is that of its own "
        "curve, which nobody sees who has no held-out cells."
    )
    tables.write(session, "match", "Time to match LinearSCVI", table, notes)


def _match(ours: pd.DataFrame, reference: pd.DataFrame, pca: pd.DataFrame | None) -> dict[str, Any]:
    target = reference["elbo"].median()
    best = np.median([max(point["elbo"] for point in curve if point["elbo"]) for curve in reference["curve"]])
    train, call = reference["seconds"].median(), ours["seconds"].median()
    to_match = np.median([seconds_to(curve, target) for curve in ours["curve"]])
    row = {
        "reference": NAMES[reference["method"].iloc[0]],
        "its ELBO": target,
        "our ELBO": ours["elbo"].median(),
        "its train() s": train,
        "time to match s": to_match,
        "our call s": call,
        _RATIOS[0]: train / to_match,
        _RATIOS[1]: train / call,
        "its best ELBO": best,
        "it has it after s": np.median([seconds_to(curve, best) for curve in reference["curve"]]),
        "we have it after s": np.median([seconds_to(curve, best) for curve in ours["curve"]]),
    }
    if pca is not None:
        row |= {"PCA s": pca["seconds"].median(), "call / PCA": call / pca["seconds"].median()}
    return row


def _write_cross_check(session: Session, runs: pd.DataFrame) -> None:
    if "cross_check" not in runs:
        return
    rows = [
        {
            "data": run["data"],
            "weights of": NAMES[run["method"]],
            "seed": run["seed"],
            "computed by": {"fitted": "the fitted module", "scvi": "scvi-tools", "sc_ldvae": "sc_ldvae"}[package],
            "ELBO": check[package],
            "evaluator": check[f"{package}_evaluator"],
            "largest relative difference": check[f"{package}_difference"],
        }
        for run in runs.to_dict("records")
        if isinstance(check := run["cross_check"], dict)
        for package in ("fitted", "sc_ldvae", "scvi")
        if package in check
    ]
    notes = "Weights of one package loaded into the other; ELBO per cell of up to 100 held-out cells, one draw."
    tables.write(session, "cross_check", "Cross check of the evaluator", pd.DataFrame(rows), notes)
