"""What a newcomer waits for: first calls on a machine, in a mode and in a process; and the phases of every call."""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anndata as ad
import pandas as pd
import scanpy as sc
import torch

import sc_ldvae
from benchmarks import process, tables
from benchmarks.clock import Clock
from benchmarks.counts import counts_of
from benchmarks.data import prepared
from benchmarks.methods import fit_ldvae

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.runs import Session

NAMES_OF_DATA = ("pbmc3k", "lung", "marrow", "kang")
_DEFAULT = {"gene_likelihood": "nb", "dispersion": "gene"}
_FURTHER = {"gene_likelihood": "zinb", "dispersion": "gene-cell"}
_PCA_COMPONENTS = 50
_PACKAGE = Path(sc_ldvae.__file__).parent


def start_up(session: Session, names: Sequence[str] = NAMES_OF_DATA, repeats: int = 3) -> None:
    """Write the tables of first calls and of phases."""
    first_calls(session, repeats)
    rows = []
    for name in names:
        path = prepared(name, session.data, session.out)
        if path is not None:
            request = {"path": str(path), "threads": session.threads, "repeats": repeats}
            rows.append({"data": name} | session.call("benchmarks.start_up:phases", **request))
    if rows:
        table = pd.DataFrame(rows).drop(columns="process_seconds")
        notes = (
            f"Seconds of sc_ldvae.tl.ldvae by default, medians of {repeats} calls in a process that has made one "
            "before. start: until the first step, checks of the counts included; after: canonical factors, latent, "
            "errors, explained deviance, held-out ELBO. PCA: scanpy's normalize_total, log1p and pca(50) of the counts."
        )
        tables.write(session, "phases", "The phases of a call", table, notes)


def first_calls(session: Session, repeats: int) -> None:
    """Write the table of fresh processes."""
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            # Beside the package itself there may be machine code.
            shutil.copytree(_PACKAGE, Path(folder, _PACKAGE.name), ignore=shutil.ignore_patterns("__pycache__"))
            where = {"NUMBA_CACHE_DIR": f"{folder}/cache", "PYTHONPATH": folder}
            for kernels, mode in (("none", _DEFAULT), ("of another mode", _FURTHER), ("all", _DEFAULT)):
                result = process.run("benchmarks.first_call:call", mode, session.threads, **where)
                rows.append({"kernels on disk": kernels} | mode | result)
    table = pd.DataFrame(rows).groupby(["kernels on disk", *_DEFAULT], sort=False).median().reset_index()
    titles = {
        "import_seconds": "imports and data s",
        "call_seconds": "first call s",
        "call_cpu_seconds": "its CPU s",
        "second_seconds": "second call s",
        "process_seconds": "whole process s",
    }
    notes = (
        "sc_ldvae.tl.ldvae(sc_ldvae.datasets.pbmc68k_counts()), 700 cells x 765 genes, in fresh processes. CPU seconds "
        f"are those of all processes that the call starts. Medians of {repeats}."
    )
    tables.write(session, "start_up", "First calls", table.rename(columns=titles), notes)


def phases(path: str, threads: int, repeats: int) -> dict[str, float]:
    """Medians in this process."""
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    rows = []
    for _ in range(1 + repeats):
        seconds = _phases_of_call(adata.copy())
        rows.append(seconds | {"PCA": _pca_seconds(ad.AnnData(counts_of(adata).copy()))})
    # In the first one everything wakes.
    table = pd.DataFrame(rows[1:])
    found = table.median()
    shares = {f"{name} %": 100 * found[name] / found["call"] for name in ("start", "training", "after")}
    return {**found, **shares, "call / PCA": (table["call"] / table["PCA"]).median()}


def _phases_of_call(adata: ad.AnnData) -> dict[str, float]:
    clock = Clock()
    clock.start()
    fit_ldvae(adata, clock, seed=0)
    clock.stop()
    # Nobody sees the first step begin, but rounds have equally many.
    per_round = median(this.trained - before.done for before, this in pairwise(clock.rounds))
    begun, ended = clock.rounds[0].trained - per_round, clock.rounds[-1].done
    return {"call": clock.seconds, "start": begun, "training": ended - begun, "after": clock.seconds - ended}


def _pca_seconds(adata: ad.AnnData) -> float:
    start = time.perf_counter()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, _PCA_COMPONENTS)
    return time.perf_counter() - start
