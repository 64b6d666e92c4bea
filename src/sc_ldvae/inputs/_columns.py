"""Columns of obs that factors can be associated with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae.assess import Column

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_MOST_LEVELS = 50


def columns_of(obs: pd.DataFrame, keys: Sequence[str] | None, but: Collection[str]) -> list[Column]:
    """Columns of obs that factors can be associated with: those that are named, or all that can be, `but` some.

    Raises
    ------
    TypeError, ValueError
        If one that is named is unknown or can't be, or if there is none.
    """
    if isinstance(keys, str):
        msg = f"keys must be a list of columns of obs: [{keys!r}]."
        raise TypeError(msg)
    if keys is not None:
        columns = [_asked(obs, key) for key in dict.fromkeys(keys)]
    else:
        every = [_column(obs, str(key)) for key in obs if key not in but and _has_kind(obs[key])]
        columns = [column for column in every if not (_problem(column) or len(column.levels or ()) > _MOST_LEVELS)]
    if not columns:
        msg = f"keys={keys!r} leaves no column of obs to associate with. Columns: {', '.join(map(repr, obs))}."
        raise ValueError(msg)
    return columns


def _asked(obs: pd.DataFrame, key: str) -> Column:
    if key not in obs:
        msg = f"keys holds {key!r}, which is not a column of obs. Columns: {', '.join(map(repr, obs)) or 'none'}."
        raise ValueError(msg)
    if not _has_kind(obs[key]):
        msg = f"keys: obs[{key!r}] is {obs[key].dtype}, neither categorical nor numeric. Convert it, or leave it out."
        raise ValueError(msg)
    column = _column(obs, key)
    problem = _problem(column)
    if problem:
        msg = f"keys: obs[{key!r}] {problem}: there is nothing to associate with. Leave it out."
        raise ValueError(msg)
    return column


def _has_kind(column: pd.Series) -> bool:
    kinds = pd.api.types
    return (
        isinstance(column.dtype, pd.CategoricalDtype)
        or kinds.is_numeric_dtype(column.dtype)
        or kinds.is_string_dtype(column.dtype)
    )


def _column(obs: pd.DataFrame, key: str) -> Column:
    column = obs[key]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        known = ~np.isnan(numbers)
        return Column(key, known, numbers[known], None)
    groups = pd.Categorical(column).remove_unused_categories()
    known = groups.codes >= 0
    return Column(key, known, groups.codes[known].astype(np.intp), tuple(map(str, groups.categories)))


def _problem(column: Column) -> str | None:
    """What keeps it from being associated with anything."""
    if column.levels is None:
        constant = not column.known.any() or column.entries.min() == column.entries.max()
        return "has one value" if constant else None
    if len(column.levels) <= 1:
        return f"has {len(column.levels)} levels"
    return "has as many levels as cells" if len(column.levels) == len(column.entries) else None
