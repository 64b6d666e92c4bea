"""New names of genes, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae._lazy import frame_of
from sc_ldvae._said import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def new_names_of(adata: AnnData, names: Mapping[str, str] | str) -> dict[str, str]:
    """New name of genes by their old one, from such a mapping or a column of var.

    Raises
    ------
    ValueError
        If there is no such column, or it lacks names.
    """
    if not isinstance(names, str):
        return dict(names)
    return dict(zip(adata.var_names, _column(adata, names), strict=True))


def _column(adata: AnnData, key: str) -> list[str]:
    var = frame_of(adata.var)
    if key not in var.columns:
        msg = f"names={key!r} is not a column of var. Columns: {', '.join(map(said, var.columns)) or 'none'}."
        raise ValueError(msg)
    n_missing = int(var[key].isna().sum())
    if n_missing:
        msg = (
            f"names={key!r}: var[{key!r}] is missing in {n_missing} genes. Fill it, for example with the old names: "
            f"var[{key!r}].astype(object).fillna(adata.var_names.to_series())."
        )
        raise ValueError(msg)
    column: list[Any] = var[key].tolist()
    other = [name for name in column if not isinstance(name, str)]
    if other:
        one = said(other[0])
        msg = f"names={key!r}: var[{key!r}] holds {one}, but names of genes are text. Make it text: .astype(str)."
        raise ValueError(msg)
    return column
