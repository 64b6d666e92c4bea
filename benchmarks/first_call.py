"""The first call in a fresh process, imports included, with and without compiled kernels on disk."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING

import pandas as pd

from benchmarks import process, tables

if TYPE_CHECKING:
    from benchmarks.runs import Session


def first_call(session: Session, repeats: int = 3) -> None:
    """Write the table of seconds."""
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("cold", "warm"):
                result = process.run("benchmarks.first_call:call", {}, session.threads, NUMBA_CACHE_DIR=folder)
                rows.append({"kernels": cache} | result)
    table = pd.DataFrame(rows).groupby("kernels", sort=False).median().reset_index()
    titles = {"import_seconds": "imports s", "call_seconds": "data and call s", "process_seconds": "whole process s"}
    notes = "sc_ldvae.tl.ldvae(sc_ldvae.datasets.pbmc68k_counts()), 700 cells x 765 genes. " + f"Medians of {repeats}."
    tables.write(session, "first_call", "First call", table.rename(columns=titles), notes)


def call() -> dict[str, float]:
    """Import the package and fit the embedded counts, in this process."""
    start = time.perf_counter()
    import sc_ldvae

    sc_ldvae.tl.ldvae  # noqa: B018  parts of the package load when they are first named
    imported = time.perf_counter()
    sc_ldvae.tl.ldvae(sc_ldvae.datasets.pbmc68k_counts(), progress=False)
    return {"import_seconds": imported - start, "call_seconds": time.perf_counter() - imported}
