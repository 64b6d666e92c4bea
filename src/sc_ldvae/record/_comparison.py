"""Differential expression in scanpy's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae.record._plain import plain
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from anndata import AnnData

# As scanpy has them; everything else is in single precision.
_TYPES: dict[str, type] = {"names": object, "pvals": np.float64, "pvals_adj": np.float64, "is_de": bool}
# Files do not keep their order.
_COLUMNS = (
    "scores",
    "logfoldchanges",
    "pvals",
    "pvals_adj",
    "lfc_sd",
    "proba_de",
    "bayes_factor",
    "is_de",
    "proportion",
    "proportion_reference",
)


def write_comparison(
    adata: AnnData, name: str, params: Mapping[str, Any], tables: dict[str, pd.DataFrame], not_fitted: pd.Index
) -> None:
    """Set ``uns[name]`` to ranked genes, one table per group, as :func:`scanpy.tl.rank_genes_groups` leaves them."""
    # Files give fields without a name another one.
    named = dict(params) | {"groups": np.array(list(tables), dtype=str)}
    write(adata, {"uns": {name: {"params": named, **as_scanpy(tables, not_fitted)}}})


def read_comparison(adata: AnnData, name: str, group: str | None = None) -> dict[str, pd.DataFrame]:
    """The table of each group, or of one: fitted genes in the order of the scores.

    Raises
    ------
    ValueError
        If there is no such result or group.
    """
    stored = adata.uns.get(name)
    if not isinstance(stored, Mapping) or not {"names", *_COLUMNS} <= set(stored):
        msg = (
            f"uns[{name!r}] holds no comparison by sc_ldvae.tl.differential_expression. Make one, or name it with key=."
        )
        raise ValueError(msg)
    fields = list(stored["names"].dtype.names or ())
    groups = np.atleast_1d(
        plain(stored.get("params", {}).get("groups", np.array(fields, dtype=str)), "groups")
    ).tolist()
    if group is not None and group not in groups:
        msg = f"group={group!r} was not compared. Groups: {', '.join(map(repr, groups))}."
        raise ValueError(msg)
    frames = {
        one: pd.DataFrame(
            {"names": plain(stored["names"][field], "names")} | {column: stored[column][field] for column in _COLUMNS}
        )
        for one, field in zip(groups, fields, strict=True)
        if group is None or one == group
    }
    # The proportions of fitted genes are never zero.
    return {one: frame[frame["proportion_reference"] > 0] for one, frame in frames.items()}


def as_scanpy(tables: dict[str, pd.DataFrame], not_fitted: pd.Index) -> dict[str, Any]:
    """Structured arrays with one field per group, as :func:`scanpy.tl.rank_genes_groups` leaves them.

    Some of scanpy's plots want every gene of the object: those that were not fitted do not differ, and have zeros.
    """
    zeros = pd.DataFrame({"names": not_fitted, "pvals": 1.0, "pvals_adj": 1.0})
    ordered = {}
    for group, ranked in tables.items():
        every = pd.concat([ranked, zeros]) if len(zeros) else ranked
        ordered[group] = every.sort_values("scores", ascending=False, kind="stable", key=lambda score: score.fillna(0))
    result = {}
    for column in tables[next(iter(tables))].columns:
        frame = pd.DataFrame(
            {
                group: ranked[column].fillna(0).to_numpy(_TYPES.get(column, np.float32))
                for group, ranked in ordered.items()
            }
        )
        result[column] = frame.to_records(index=False)
    return result
