"""What genes are called where a column of var names them, as scanpy's `gene_symbols` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sc_ldvae._lazy import frame_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def symbols_of(objects: Mapping[str, AnnData], gene_symbols: str | None) -> dict[str, dict[str, str]]:
    """Symbol of each gene of each modality, by its name; none where they are not asked for, or the column is not there.

    A gene without a symbol keeps its name; those that share one have their names behind it, for rows of tables and of
    plots are of one gene each.

    Raises
    ------
    ValueError
        If no modality has the column.
    """
    if gene_symbols is None:
        return {modality: {} for modality in objects}
    frames = {modality: frame_of(adata.var) for modality, adata in objects.items()}
    if not any(gene_symbols in var for var in frames.values()):
        columns = dict.fromkeys(str(column) for var in frames.values() for column in var)
        msg = (
            f"gene_symbols={gene_symbols!r} is not a column of var. Columns: {', '.join(map(repr, columns)) or 'none'}."
        )
        raise ValueError(msg)
    return {modality: _of(var, gene_symbols) if gene_symbols in var else {} for modality, var in frames.items()}


def renamed(names: pd.Index[str], symbols: Mapping[str, str]) -> pd.Index[str]:
    """Names of genes, or where they have one their symbols."""
    return pd.Index([symbols.get(name, name) for name in names]) if symbols else names


def _of(var: pd.DataFrame, column: str) -> dict[str, str]:
    known = var[column].dropna().astype(str)
    known = known[known != ""]
    shared = known.duplicated(keep=False)
    return {
        name: f"{symbol} ({name})" if twice else symbol
        for name, symbol, twice in zip(known.index, known, shared, strict=True)
    }
