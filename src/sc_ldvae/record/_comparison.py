"""Differential expression in scanpy's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae.record._plain import CHECKSUM, checksum, plain, says
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

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


def write_comparison(adata: AnnData, name: str, params: Mapping[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    """Set ``uns[name]`` to ranked genes, one table per group, as :func:`scanpy.tl.rank_genes_groups` leaves them."""
    # Files give fields without a name another one.
    named = dict(params) | {"groups": np.array(list(tables), dtype=str)}
    content: dict[str, Any] = {"params": named, **as_scanpy(tables)}
    named[CHECKSUM] = checksum(_arrays_of(content))
    write(adata, {"uns": {name: content}})


def read_comparison(adata: AnnData, name: str, group: str | None = None) -> dict[str, pd.DataFrame]:
    """The table of each group, or of one: fitted genes in the order of the scores.

    Raises
    ------
    ValueError
        If there is no such result or group, or if the result is not what was written.
    """
    stored = comparisons_in(adata).get(name)
    if stored is None:
        msg = (
            f"uns[{name!r}] holds no comparison by sc_ldvae.tl.differential_expression. Make one, or name it with key=."
        )
        raise ValueError(msg)
    try:
        arrays = _checked(stored)
    except ValueError as error:
        msg = f"uns[{name!r}] is damaged: {error}. Call sc_ldvae.tl.differential_expression again."
        raise ValueError(msg) from error
    if group is not None and group not in arrays:
        msg = f"group={group!r} was not compared. Groups: {', '.join(map(repr, arrays))}."
        raise ValueError(msg)
    frames = {one: pd.DataFrame(columns) for one, columns in arrays.items() if group is None or one == group}
    # Results of older versions have zeros for genes that were not fitted; the proportions of the others are never zero.
    return {one: frame[frame["proportion_reference"] > 0] for one, frame in frames.items()}


def comparisons_in(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """Every comparison in uns, by its key, as it stands there."""
    entries = {name: value for name, value in adata.uns.items() if isinstance(value, Mapping)}
    return {name: value for name, value in entries.items() if {"names", *_COLUMNS} <= set(value)}


def renamed_comparison(stored: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The comparison with genes under new names."""
    table = {
        field: pd.Series([names.get(name, name) for name in column.tolist()], dtype=object)
        for field, column in _fields_of(stored["names"], "names").items()
    }
    content = dict(stored) | {"names": pd.DataFrame(table).to_records(index=False)}
    if CHECKSUM in content["params"]:
        content["params"] = {name: value for name, value in content["params"].items() if name != CHECKSUM}
        content["params"][CHECKSUM] = checksum(_arrays_of(content))
    return content


def _checked(stored: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """The columns of each group as they were written."""
    arrays = _arrays_of(stored)
    params = stored.get("params")
    # Results of older versions have no checksum.
    same = isinstance(params, Mapping) and (
        CHECKSUM not in params or says(plain(params[CHECKSUM], CHECKSUM), checksum(arrays))
    )
    if not same:
        msg = "its values are not those that were written"
        raise ValueError(msg)
    return arrays


def _arrays_of(stored: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Each group's columns, of one length, as plain arrays."""
    columns = {column: _fields_of(stored[column], column) for column in ("names", *_COLUMNS)}
    fields, params = list(columns["names"]), stored.get("params")
    named = params["groups"] if isinstance(params, Mapping) and "groups" in params else np.array(fields, dtype=str)
    groups = np.atleast_1d(plain(named, "params/groups"))
    shapes = {array.shape for column in columns.values() for array in column.values()}
    if groups.shape != (len(fields),) or len(shapes) > 1 or any(list(column) != fields for column in columns.values()):
        msg = "its columns are not of the same groups and genes"
        raise ValueError(msg)
    return {
        group: {name: column[field] for name, column in columns.items()}
        for group, field in zip(groups.tolist(), fields, strict=True)
    }


def _fields_of(value: Any, name: str) -> dict[str, NDArray[Any]]:  # noqa: ANN401  whatever a file gives
    """The fields of a structured array."""
    fields = getattr(getattr(value, "dtype", None), "names", None) or ()
    arrays = {field: plain(value[field], f"{name}/{field}") for field in fields}
    kinds = "U" if name == "names" else "biuf"
    if not arrays or any(array.ndim != 1 or array.dtype.kind not in kinds for array in arrays.values()):
        msg = f"{name!r} is no table of the groups"
        raise ValueError(msg)
    return arrays


def as_scanpy(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Structured arrays with one field per group, as :func:`scanpy.tl.rank_genes_groups` leaves them.

    As there with `n_genes`, they are shorter than the object has genes where not all of them were compared.
    """
    ordered = {group: table.sort_values("scores", ascending=False, kind="stable") for group, table in tables.items()}
    result = {}
    for column in tables[next(iter(tables))].columns:
        frame = pd.DataFrame(
            {group: ranked[column].to_numpy(_TYPES.get(column, np.float32)) for group, ranked in ordered.items()}
        )
        result[column] = frame.to_records(index=False)
    return result
