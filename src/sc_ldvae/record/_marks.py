"""What a fit keeps of each cell in obs: one reader for what files, concatenation and other tools make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._lazy import frame_of
from sc_ldvae._said import said
from sc_ldvae.record._obs import column_of
from sc_ldvae.record._plain import plain
from sc_ldvae.record._read import fits_in
from sc_ldvae.record._scores import scores_in

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Data, Mask
    from sc_ldvae.record._joint import JointRecord
    from sc_ldvae.record._record import Record

_TRUTH = {True: True, False: False, "True": True, "False": False, "TRUE": True, "FALSE": False}


def library(adata: AnnData, stored: Record) -> NDArray[np.float32]:
    """Library of each cell, n_obs; missing where it has none, and 1 where the likelihood has none.

    Raises
    ------
    ValueError
        If it is gone.
    """
    if not stored.has_library:
        return np.ones(adata.n_obs, np.float32)
    key = stored.keys.library
    if key not in adata.obs:
        msg = f"uns[{stored.keys.uns!r}] holds a fit, but its obs[{key!r}] is gone. Put it back, or fit again."
        raise ValueError(msg)
    values = pd.to_numeric(_column(adata, key), errors="coerce")
    if np.iscomplexobj(values):
        msg = f"obs[{key!r}] holds {values.dtype} in place of the cells' libraries. Put it back, or fit again."
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def library_column(stored: Record, library: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.floating[Any]]]:
    """Entry of obs with the library of each cell; none where the likelihood has none."""
    return {stored.keys.library: library} if stored.has_library else {}


def held_out(adata: Data, stored: Record | JointRecord) -> Mask:
    """Which cells were not in the training, n_obs: those of which nobody says that they were, too.

    Raises
    ------
    ValueError
        If the column holds anything but truth values.
    """
    key = stored.keys.held_out
    if key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=bool)
    column = _column(adata, key)
    missing = pd.isna(column)
    truth = [True if gone else _TRUTH.get(value) for value, gone in zip(column.tolist(), missing, strict=True)]
    if None in truth:
        msg = f"obs[{key!r}] says which cells were held out, but holds {said(column[truth.index(None)])}. Put it back."
        raise ValueError(msg)
    return np.array(truth, dtype=bool)


def fit_column(stored: Record | JointRecord, n_obs: int) -> pd.Categorical[str]:
    """What tells of so many cells that their latent is of this fit."""
    return pd.Categorical.from_codes(np.zeros(n_obs, dtype=np.int8), pd.Index([stored.fingerprint]))


def columns_in(adata: Data) -> set[str]:
    """Columns of obs that fits and scores by them have left there: they are not what is known of the cells."""
    fits, kept = fits_in(adata), ("library", "held_out", "fit")
    of_fits = {
        str(plain(content["keys"][name], name))
        for content in fits.values()
        for name in kept
        if name in content.get("keys", {})
    }
    return of_fits.union(*(scores_in(adata, key) for key in fits))


def fits(adata: Data, stored: Record | JointRecord) -> NDArray[np.object_]:
    """Fingerprint of the fit of each cell, n_obs; this one's where no column tells, as formats before 5 have none."""
    key = stored.keys.fit
    if key not in adata.obs:
        return np.full(adata.n_obs, stored.fingerprint, dtype=object)
    return _column(adata, key)


def _column(adata: Data, key: str) -> NDArray[np.object_]:
    # pandas' own astype changes the filters of warnings for a moment, which threads must not.
    column = column_of(frame_of(adata.obs), key, "obs")
    return np.asarray(column, dtype=np.dtype(object))
