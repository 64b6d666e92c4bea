"""Columns of obs, whatever people and other tools keep in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._said import said

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ObsError(ValueError):
    """A column of obs is not what is needed. Whose obs it is, somebody adds who knows."""


def numbers(obs: pd.DataFrame, key: str, argument: str) -> NDArray[np.float64]:
    """A numeric column of obs without missing or infinite values.

    Raises
    ------
    ObsError
        If it is not such a column; the sentence names `argument`.
    """
    column = whole_column(obs, key, argument)
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(column) or kinds.is_bool_dtype(column) or kinds.is_complex_dtype(column):
        msg = f"{argument}: obs[{key!r}] has the type {column.dtype}, but must hold numbers."
        raise ObsError(msg)
    values = column.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        msg = f"{argument}: obs[{key!r}] is infinite in {(~np.isfinite(values)).sum()} cells."
        raise ObsError(msg)
    return values


def levels_of(column: pd.Series[Any], key: str, argument: str) -> tuple[NDArray[np.int64], list[str]]:
    """Position of each cell's level, n_obs, -1 where it has none; and the levels that occur, as text.

    Raises
    ------
    ObsError
        If they are no levels, or if some can't be told apart by their names.
    """
    values: Any = column.array
    if not isinstance(column.dtype, pd.CategoricalDtype) and getattr(column.dtype, "kind", "O") in "iufc":
        values = _native(column)
    try:
        levels = pd.Categorical(values).remove_unused_categories()
    except (TypeError, ValueError, NotImplementedError) as error:
        example = said(column.iloc[0])
        msg = f"{argument}: obs[{key!r}] holds {example}, which can't be a level. Make it text or a category."
        raise ObsError(msg) from error
    names = [str(level) for level in levels.categories]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"{argument}: obs[{key!r}] has different levels that read {twice!r} as text. Rename one of them."
        raise ObsError(msg)
    return levels.codes.astype(np.int64), names


def _native(column: pd.Series[Any]) -> Any:  # noqa: ANN401  what pandas sorts
    """Numbers in a type that pandas can sort: not sparse, not halves, not in the order of bytes of another machine."""
    if isinstance(column.dtype, pd.SparseDtype):
        return np.asarray(column)
    if not isinstance(column.dtype, np.dtype):
        return column.array
    wide = np.result_type(column.dtype, np.float32) if column.dtype.kind == "f" else column.dtype
    return column.to_numpy(wide.newbyteorder("="))


def check_present(obs: pd.DataFrame, key: str) -> None:
    """Refuse cells of which nobody says what the fit knows of each."""
    if key not in obs.columns:
        msg = f"The fit knows each cell's {key!r}, but obs has no such column. Add it, as the fit knows it."
        raise ObsError(msg)


def column_of(obs: pd.DataFrame, key: str, argument: str) -> pd.Series[Any]:
    """A column of obs by its name.

    Raises
    ------
    ObsError
        If there is none, or more than one.
    """
    if key not in obs.columns:
        msg = f"{argument}={key!r} is not a column of obs. Columns: {', '.join(map(said, obs.columns)) or 'none'}."
        raise ObsError(msg)
    times = int((obs.columns == key).sum())
    if times > 1:
        msg = f"{argument}: obs holds {key!r} {times} times. Give each column its own name."
        raise ObsError(msg)
    return obs[key]


def whole_column(obs: pd.DataFrame, key: str, argument: str) -> pd.Series[Any]:
    """The same, where no cell may lack a value."""
    column = column_of(obs, key, argument)
    n_missing = int(column.isna().sum())
    if n_missing:
        msg = f"{argument}: obs[{key!r}] is missing in {n_missing} cells. Fill these values or leave those cells out."
        raise ObsError(msg)
    return column
