"""Columns of obs with scores of cells, and the note in uns of which they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.record._plain import plain
from sc_ldvae.record._read import fits_in
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from sc_ldvae._typing import Data, Floats

_COLUMNS = "columns"


def write_scores(adata: Data, column: str | None, values: Floats, key: str) -> float:
    """Their mean; with a column, obs gets them, and uns a note that it holds scores by the fit `key`."""
    if column is not None:
        note = _name(key)
        # Of a column of obs nothing tells who wrote it. A fit that is called like the note is worth more than it.
        noted = {} if note in fits_in(adata) else {note: {_COLUMNS: np.array(sorted(scores_in(adata, key) | {column}))}}
        write(adata, {"obs": {column: values}, "uns": noted})
    return float(values.mean())


def scores_in(adata: Data, key: str) -> set[str]:
    """Columns of obs that got scores by the fit `key`."""
    found: Any = adata.uns.get(_name(key))
    if not isinstance(found, Mapping) or _COLUMNS not in found:
        return set()
    return {str(column) for column in np.atleast_1d(plain(found[_COLUMNS], _name(key))).ravel()}


def _name(key: str) -> str:
    return f"{key}_scores"
