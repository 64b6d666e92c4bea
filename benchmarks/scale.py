"""Seconds and memory against cells and against genes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks import figures, tables
from benchmarks.data import prepared, simulated
from benchmarks.methods import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.runs import Session

CELLS = (3_000, 10_000, 30_000, 100_000, 300_000)
GENES_OF_CELLS = 2_000
GENES = (1_000, 3_000, 10_000, 30_000)
# Beyond, an epoch of LinearSCVI takes a minute.
MOST_CELLS_OF_REFERENCE = 30_000
CELLS_OF_GENES = 3_000
METHODS = ("ldvae", "linear_scvi", "pca")
_EPOCHS = 3


def scale(
    session: Session, cells: Sequence[int] = CELLS, genes: Sequence[int] = GENES, methods: Sequence[str] = METHODS
) -> None:
    """Run what has not been run, then write the table and the figure."""
    sizes = [("cells", n, GENES_OF_CELLS) for n in cells] + [("genes", CELLS_OF_GENES, n) for n in genes]
    idle = session.idle_megabytes()
    everything = [(against, n_obs, simulated(n_obs, n_vars, session.out)) for against, n_obs, n_vars in sizes]
    all_genes = prepared("pbmc3k_all_genes", session.data, session.out)
    if all_genes is not None:
        everything.append(("all genes", 0, all_genes))
    session.compile(everything[0][2])
    rows = []
    for against, n_obs, path in everything:
        for method in methods:
            if method == "linear_scvi" and n_obs > MOST_CELLS_OF_REFERENCE:
                continue
            epochs = None if method == "pca" else _EPOCHS
            request = {"path": str(path), "method": method, "epochs": epochs}
            result = session.fit("scale", f"{path.stem}.{method}", **request)
            if result is not None:
                rows.append({"data": path.stem, "against": against, "method": method} | _numbers(result, idle))
    table = pd.DataFrame(rows)
    figures.scaling(table, session.out / "scaling.png")
    notes = (
        f"Medians over the epochs of fits of {_EPOCHS} epochs but the first; PCA: the whole call. Without start and "
        "evaluation. Memory: peak of the process less that of an idle one with torch loaded, less the counts; and less "
        "that of the same process before the call, when a tiny fit had loaded everything."
    )
    table["method"] = table["method"].map(NAMES)
    tables.write(session, "scaling", "Scaling", table.rename(columns=_TITLES), notes)


_TITLES = {
    "n_train": "training cells",
    "n_genes": "genes",
    "n_nonzeros": "nonzeros",
    "seconds": "s per epoch",
    "nanoseconds": "ns per nonzero and epoch",
    "memory": "peak MB over torch and counts",
    "memory_of_call": "peak MB over the process before",
    "counts_megabytes": "counts MB",
}


def _numbers(result: dict[str, Any], idle: float) -> dict[str, float]:
    seconds = median(result["epoch_seconds"]) if result["epoch_seconds"] else result["seconds"]
    sizes = {key: result[key] for key in ("n_train", "n_genes", "n_nonzeros", "counts_megabytes")}
    return sizes | {
        "seconds": seconds,
        "nanoseconds": 1e9 * seconds / result["n_nonzeros"],
        "memory": result["peak_megabytes"] - idle - result["counts_megabytes"],
        "memory_of_call": result["peak_megabytes"] - result["ready_megabytes"],
    }
