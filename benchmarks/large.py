"""Whole fits of many cells, whose counts are in memory or stay on disk, and LinearSCVI's first epoch beside them."""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch

import sc_ldvae
from benchmarks import data, exchange, machine, tables
from benchmarks.clock import Clock
from benchmarks.counts import counts_of
from benchmarks.evaluate import scores
from benchmarks.methods import METHODS, fit_ldvae, lightning_callback, quiet
from sc_ldvae.counts import evenly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.runs import Session

SIZES = (30_000, 100_000, 300_000, 1_000_000)
N_GENES = 2_000
# Beyond, an epoch of LinearSCVI takes minutes.
MOST_CELLS_OF_REFERENCE = 100_000
WAYS = {
    "memory": "in memory",
    "disk": "on disk, plain h5ad",
    "gzip": "on disk, gzip h5ad",
    "linear_scvi": "LinearSCVI in memory, one epoch",
    "annbatch": "LinearSCVI through annbatch, one epoch",
}
OURS = ("memory", "disk", "gzip")
_WARM_UP_CELLS = 300
_BATCH_SIZE = 128
_CELLS_TO_SCORE, _DRAWS = 2_000, 10


def large(
    session: Session,
    sizes: Sequence[int] = SIZES,
    n_genes: int = N_GENES,
    ways: Sequence[str] = tuple(WAYS),
    repeats: int = 3,
) -> None:
    """Run what has not been run, one process per fit, then write the table.

    Parameters
    ----------
    session
        Results, threads.
    sizes
        Numbers of cells.
    n_genes
        Number of genes.
    ways
        Some of `WAYS`.
    repeats
        Fits of each kind, with the same seed.
    """
    missing = _why_no_annbatch()
    if missing and "annbatch" in ways:
        print(f"large: annbatch is left out. {missing}")
    ways = [way for way in ways if way != "annbatch" or not missing]
    session.compile(data.large(min(sizes), n_genes, session.out))
    rows = []
    for n_obs, way in _runs(sizes, ways):
        path = data.large(n_obs, n_genes, session.out, compression="gzip" if way == "gzip" else None)
        for i in range(repeats):
            request = {"path": str(path), "way": way, "threads": session.threads}
            result = session.remembered("large", f"{path.stem}.{way}.{i}", "benchmarks.large:fitted", **request)
            if result is None:
                # The others would fail likewise.
                break
            rows.append({"cells": n_obs, "way": way} | result)
    if not rows:
        return
    runs = pd.DataFrame(rows).drop(columns="process_seconds").groupby(["cells", "way"], sort=False)
    table = runs.median()
    table.insert(0, "runs", runs.size())
    table = table.reset_index()
    ours = table["way"].isin(OURS)
    in_memory = table[table["way"] == "memory"].set_index("cells")
    for name in ("seconds", "cpu_seconds"):
        table[f"{name}_ratio"] = (table[name] / table["cells"].map(in_memory[name])).where(ours)
    table["same"] = (table["elbo"] == table["cells"].map(in_memory["elbo"])).map({True: "yes", False: "no"}).where(ours)
    table["way"] = table["way"].map(WAYS)
    notes = (
        f"Counts of one model with 10 factors, {n_genes} genes. Medians over the runs. Ours: tl.ldvae by default, and "
        "io.write_result. LinearSCVI: setup, one epoch of minibatches of 128 and the latent of the training cells, "
        "nothing written; by default it takes 400 epochs up to 20,000 cells, and 8,000,000 over their number beyond; "
        "through annbatch its setup writes the collection. Peak: resident memory of the process; before: when the "
        "call began, with counts that are in memory. Seconds per epoch: of the steps, reading included; of ours in "
        "all rounds but the first, whose beginning nobody saw. ELBO: ours as it stands in the record, LinearSCVI's of "
        f"at most {_CELLS_TO_SCORE} held-out cells by our evaluator. Ratios: to the same fit in memory."
    )
    tables.write(session, "large", "Many cells", table.rename(columns=_TITLES), notes)


_TITLES = {
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "trained_seconds": "s until trained",
    "epoch_seconds": "s per epoch",
    "n_epochs": "epochs",
    "peak_megabytes": "peak MB",
    "ready_megabytes": "MB before",
    "factors": "factors left",
    "elbo": "held-out ELBO",
    "same": "to the bit that in memory",
    "seconds_ratio": "s / in memory",
    "cpu_seconds_ratio": "CPU s / in memory",
}


class _Run(NamedTuple):
    """A fit in this process."""

    call: Callable[[Clock], Any]
    """What is timed."""
    scores: Callable[[Any], dict[str, float]]
    """What its answer is worth."""


def fitted(path: str, way: str, threads: int) -> dict[str, float]:
    """One fit in this process, from the call to the result."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    _warm_up(path, "ldvae" if way in OURS else "linear_scvi")
    with TemporaryDirectory() as folder:
        run = _run(way, path, Path(folder))
        machine.forget_peak()
        ready, clock, cpu = machine.resident_megabytes(), Clock(), time.process_time()
        clock.start()
        answer = run.call(clock)
        clock.stop()
        result = {
            "seconds": clock.seconds,
            "cpu_seconds": time.process_time() - cpu,
            "trained_seconds": clock.rounds[-1].trained,
            "epoch_seconds": clock.seconds_per_epoch(),
            "n_epochs": clock.n_epochs,
            "peak_megabytes": machine.peak_megabytes(),
            "ready_megabytes": ready,
        }
        return result | run.scores(answer)


def _why_no_annbatch() -> str:
    """Why LinearSCVI can't be fitted through it here; empty if it can."""
    absent = [name for name in ("scvi", "annbatch") if find_spec(name) is None]
    if absent:
        return f"Not installed: {', '.join(absent)}."
    from scvi.model import LinearSCVI

    return "" if hasattr(LinearSCVI, "setup_annbatch") else "This release of scvi-tools does not know it yet."


def _runs(sizes: Sequence[int], ways: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Of each size what is measured there; a file that has to be copied first, of the middle one."""
    for n_obs in sizes:
        for way in ways:
            if way == "gzip" and n_obs != sorted(sizes)[len(sizes) // 2]:
                continue
            if way in OURS or n_obs <= MOST_CELLS_OF_REFERENCE:
                yield n_obs, way


def _warm_up(path: str, method: str) -> None:
    """Compiles, imports and starts threads."""
    adata = ad.read_h5ad(path, backed="r")
    METHODS[method](adata[:_WARM_UP_CELLS].to_memory(), Clock(), 0, 1)
    adata.file.close()


def _run(way: str, path: str, folder: Path) -> _Run:
    if way in OURS:
        return _of_ours(path, folder, on_disk=way != "memory")
    quiet(0)
    # The held-out cells are not in this object, so all that it sees are training cells.
    training = ad.read_h5ad(path)
    training = training[training.obs["train"]].copy()
    if way == "linear_scvi":
        return _of_linear_scvi(path, training)
    file = folder / "training.h5ad"
    training.write_h5ad(file)
    return _through_annbatch(path, file)


def _of_ours(path: str, folder: Path, *, on_disk: bool) -> _Run:
    adata = ad.read_h5ad(path, backed="r" if on_disk else None)

    def call(clock: Clock) -> None:
        fit_ldvae(adata, clock, 0)
        sc_ldvae.io.write_result(adata, folder / "result.h5ad")

    def worth(_: None) -> dict[str, float]:
        left = int(adata.obsm["X_ldvae"].any(0).sum())
        return {"factors": left, "elbo": float(adata.uns["ldvae"]["elbo_held_out"])}

    return _Run(call, worth)


def _of_linear_scvi(path: str, training: ad.AnnData) -> _Run:
    from scvi.model import LinearSCVI

    def call(clock: Clock) -> Any:  # noqa: ANN401  a module of scvi-tools
        LinearSCVI.setup_anndata(training)
        model = LinearSCVI(training)
        model.train(train_size=1.0, batch_size=_BATCH_SIZE, **_one_epoch(clock))
        model.get_latent_representation()
        return model.module

    return _Run(call, lambda module: _worth(module, path))


def _through_annbatch(path: str, file: Path) -> _Run:
    from scvi.model import LinearSCVI

    def call(clock: Clock) -> Any:  # noqa: ANN401  a module of scvi-tools
        loaded = LinearSCVI.setup_annbatch(
            collection_path=str(file.with_suffix(".zarr")),
            paths=[str(file)],
            batch_size=_BATCH_SIZE,
            preload_to_gpu=False,
        )
        model = LinearSCVI(registry=loaded.registry)
        model.train(datamodule=loaded, **_one_epoch(clock))
        model.get_latent_representation(dataloader=loaded.inference_dataloader())
        return model.module

    return _Run(call, lambda module: _worth(module, path))


def _one_epoch(clock: Clock) -> dict[str, Any]:
    callbacks = [lightning_callback(clock)]
    return {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "callbacks": callbacks}


def _worth(module: Any, path: str) -> dict[str, float]:  # noqa: ANN401  a module of scvi-tools
    adata = ad.read_h5ad(path)
    some = evenly(np.flatnonzero(~adata.obs["train"]), _CELLS_TO_SCORE)
    model = exchange.from_linear_scvi(module)
    return {"elbo": scores(model, counts_of(adata[some]), n_draws=_DRAWS)["elbo"]}
