"""Columns of obs that factors can be associated with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae._said import said
from sc_ldvae.assess import Column
from sc_ldvae.record import ObsError, column_of, levels_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

_MOST_LEVELS = 50


def columns_of(obs: pd.DataFrame, keys: Sequence[str] | None, but: Collection[str]) -> list[Column]:
    """Columns of obs that factors can be associated with: those that are named, or all that can be, `but` some.

    Raises
    ------
    ValueError
        If one that is named is unknown or can't be, or if there is none.
    """
    if keys is not None:
        columns = [_asked(obs, key) for key in dict.fromkeys(keys)]
    else:
        columns = [column for key in obs if key not in but for column in _usable(obs, key)]
    if not columns:
        msg = f"keys={keys!r} leaves no column of obs to associate with. Columns: {', '.join(map(said, obs))}."
        raise ObsError(msg)
    return columns


def _asked(obs: pd.DataFrame, key: str) -> Column:
    found = column_of(obs, key, "keys")
    if not _has_kind(found):
        msg = f"keys: obs[{key!r}] is {found.dtype}, neither categorical nor numeric. Convert it, or leave it out."
        raise ObsError(msg)
    column = _column(found, key)
    problem = _problem(column)
    if problem:
        msg = f"keys: obs[{key!r}] {problem}: there is nothing to associate with. Leave it out."
        raise ObsError(msg)
    return column


def _usable(obs: pd.DataFrame, key: Hashable) -> list[Column]:
    """The column, if it can be associated with anything."""
    if (obs.columns == key).sum() > 1 or not _has_kind(obs[key]):
        return []
    try:
        column = _column(obs[key], str(key))
    except ValueError:
        # Its values are no levels.
        return []
    return [] if _problem(column) or len(column.levels or ()) > _MOST_LEVELS else [column]


def _has_kind(column: pd.Series) -> bool:
    kinds = pd.api.types
    return (
        isinstance(column.dtype, pd.CategoricalDtype)
        or (kinds.is_numeric_dtype(column.dtype) and not kinds.is_complex_dtype(column.dtype))
        or kinds.is_string_dtype(column.dtype)
    )


def _column(column: pd.Series, key: str) -> Column:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        dense = pd.Series(np.asarray(column)) if isinstance(column.dtype, pd.SparseDtype) else column
        numbers = dense.to_numpy(dtype=np.float64, na_value=np.nan)
        known = np.isfinite(numbers)
        return Column(key, known, numbers[known], None)
    codes, levels = levels_of(column, key, "keys")
    known = codes >= 0
    return Column(key, known, codes[known].astype(np.intp), tuple(levels))


def _problem(column: Column) -> str | None:
    """What keeps it from being associated with anything."""
    if column.levels is None:
        constant = not column.known.any() or column.entries.min() == column.entries.max()
        return "has one value" if constant else None
    if len(column.levels) <= 1:
        return f"has {len(column.levels)} levels"
    return "has as many levels as cells" if len(column.levels) == len(column.entries) else None
