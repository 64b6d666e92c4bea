"""Columns of truth values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._said import said

if TYPE_CHECKING:
    from sc_ldvae._typing import Mask


def truth_of(values: Any, name: str, n: int, of: str, advice: str) -> Mask:  # noqa: ANN401  whatever was passed
    """One truth value for each of `n` cells or genes, of a NumPy array or whatever pandas keeps it in.

    Parameters
    ----------
    values
        What was passed, or a column.
    name, of, advice
        What messages call it and those, and what they say to do.

    Raises
    ------
    ValueError
        If values are missing, are none of truth, or are not `n`.
    """
    column = pd.Series(values) if np.ndim(values) == 1 else None
    if column is None or len(column) != n:
        msg = f"{name} must be boolean, one value for each of {n} {of}, but has the shape {np.shape(values)}. {advice}"
        raise ValueError(msg.strip())
    n_missing = int(column.isna().sum())
    if n_missing:
        msg = f"{name} is missing in {n_missing} of {n} {of}. Fill it with True or False. {advice}"
        raise ValueError(msg.strip())
    if not pd.api.types.is_bool_dtype(column.dtype) and not all(isinstance(one, bool) for one in column):
        first = column.tolist()[0]
        msg = f"{name} must be boolean, but holds {said(first)} ({column.dtype}). Make it True or False. {advice}"
        raise ValueError(msg.strip())
    return column.to_numpy(dtype=bool)
