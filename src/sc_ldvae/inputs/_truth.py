"""Columns of truth values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from sc_ldvae._typing import Mask


def truth_of(values: Any, name: str, n: int, advice: str) -> Mask:  # noqa: ANN401  whatever was passed
    """One truth value for each of `n` things, of a NumPy array or whatever pandas keeps it in.

    Parameters
    ----------
    values
        What was passed, or a column.
    name, advice
        What messages call it, and what they say to do.

    Raises
    ------
    ValueError
        If values are missing, are none of truth, or are not `n`.
    """
    column = pd.Series(values) if np.ndim(values) == 1 else None
    if column is None or len(column) != n:
        msg = f"{name} must be boolean, one value for each of {n}, but has the shape {np.shape(values)}. {advice}"
        raise ValueError(msg)
    n_missing = int(column.isna().sum())
    if n_missing:
        msg = f"{name} is missing in {n_missing} of {n}. Fill it with True or False. {advice}"
        raise ValueError(msg)
    if not pd.api.types.is_bool_dtype(column.dtype) and not all(isinstance(one, bool) for one in column):
        msg = f"{name} must be boolean, but holds {column.iloc[0]!r} ({column.dtype}). Make it True or False. {advice}"
        raise ValueError(msg)
    return column.to_numpy(dtype=bool)
