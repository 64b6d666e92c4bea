"""From a comparison to ranked genes in scanpy's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats
    from sc_ldvae.decode import Comparison

Mode = Literal["change", "vanilla"]
# Keeps Bayes factors finite.
_LEAST_PROBABILITY = 1e-4
# As scanpy has them; everything else is in single precision.
_TYPES: dict[str, type] = {"names": object, "pvals": np.float64, "pvals_adj": np.float64, "is_de": bool}


def table(comparison: Comparison, test: int, genes: np.ndarray, mode: Mode, fdr: float) -> pd.DataFrame:
    up, down = (comparison.up[test], comparison.down[test])
    if mode == "vanilla":
        up, down = comparison.greater[test], 1 - comparison.greater[test]
    proba_de = np.maximum(up, down)
    not_de, order = 1 - proba_de, np.argsort(-proba_de, kind="stable")
    expected_fdr = np.empty_like(not_de)
    expected_fdr[order] = np.cumsum(not_de[order]) / np.arange(1, len(order) + 1)
    return pd.DataFrame(
        {
            "names": genes,
            "scores": _log_odds(0.5 + (up - down) / 2),
            "logfoldchanges": comparison.mean[test],
            "pvals": not_de,
            "pvals_adj": expected_fdr,
            "lfc_sd": np.sqrt(comparison.variance[test]),
            "proba_de": proba_de,
            "bayes_factor": _log_odds(proba_de),
            "is_de": expected_fdr <= fdr,
            "proportion": comparison.proportion[test],
            "proportion_reference": comparison.proportion_reference[test],
        }
    )


def as_scanpy(tables: dict[str, pd.DataFrame], not_fitted: pd.Index) -> dict[str, Any]:
    """Structured arrays with one field per group, as :func:`scanpy.tl.rank_genes_groups` leaves them.

    Some of scanpy's plots want every gene of the object: those that were not fitted do not differ, and have zeros.
    """
    zeros = pd.DataFrame({"names": not_fitted, "pvals": 1.0, "pvals_adj": 1.0})
    ordered = {}
    for group, table in tables.items():
        every = pd.concat([table, zeros]) if len(zeros) else table
        ordered[group] = every.sort_values("scores", ascending=False, kind="stable", key=lambda score: score.fillna(0))
    result = {}
    for column in tables[next(iter(tables))].columns:
        frame = pd.DataFrame(
            {
                group: table[column].fillna(0).to_numpy(_TYPES.get(column, np.float32))
                for group, table in ordered.items()
            }
        )
        result[column] = frame.to_records(index=False)
    return result


def _log_odds(probability: Floats) -> Floats:
    return np.log((probability + _LEAST_PROBABILITY) / (1 - probability + _LEAST_PROBABILITY))
