"""Tables in uns with several rows for each factor, as frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae.get._frames import factor_positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData


def stored_table(
    adata: AnnData, name: str, tool: str, columns: Sequence[str], factors: Sequence[int | str] | None, key: str
) -> pd.DataFrame:
    """The rows of ``adata.uns[name]`` that belong to `factors`: `factor`, whose categories are in order, and `columns`.

    Raises
    ------
    ValueError
        If there is no such fit or table, or if it says nothing of a factor that is named.
    """
    fit = record.read(adata, key)
    stored = stored_result(adata, name, tool, ("factor", *columns), fit)
    frame = pd.DataFrame({column: _plain(stored[column]) for column in ("factor", *columns)})
    chosen = [fit.factor_names[k] for k in factor_positions(fit, factors)]
    absent = [factor for factor in chosen if factor not in set(frame["factor"])]
    if factors is not None and absent:
        msg = f"factors holds {absent[0]!r}, which is not in uns[{name!r}]. Call sc_ldvae.tl.{tool} for it."
        raise ValueError(msg)
    frame = frame[frame["factor"].isin(chosen)]
    return frame.assign(factor=pd.Categorical(frame["factor"], categories=chosen))


def stored_result(
    adata: AnnData, name: str, tool: str, parts: Sequence[str], fit: record.Record | None = None
) -> Mapping[str, Any]:
    """What the tool left in ``adata.uns[name]``.

    Raises
    ------
    ValueError
        If one of `parts` is not there, or if it is of another fit than `fit`.
    """
    stored = adata.uns.get(name, {})
    if not all(part in stored for part in parts):
        msg = f"uns[{name!r}] holds no result of sc_ldvae.tl.{tool}. Call it first, or name its result with key_added=."
        raise ValueError(msg)
    if fit is not None and str(stored.get("fit", fit.fingerprint)) != fit.fingerprint:
        msg = (
            f"uns[{name!r}] is of another fit than uns[{fit.keys.uns!r}] holds now. Call sc_ldvae.tl.{tool} again, or "
            "name its result with key_added=."
        )
        raise ValueError(msg)
    return stored


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain strings, numbers and booleans: files give them back in various types."""
    return {name: np.asarray(value).item() for name, value in params.items()}


def strongest_first(frame: pd.DataFrame, strength: pd.Series, index: str) -> pd.DataFrame:
    """Rows factor by factor, in each by decreasing strength, indexed by factor and another column."""
    order = np.lexsort((-strength, frame["factor"].cat.codes))
    return frame.assign(factor=frame["factor"].astype(str)).iloc[order].set_index(["factor", index])


def _plain(values: np.ndarray) -> np.ndarray:
    """Files give strings back in various types."""
    array = np.asarray(values)
    return array if array.dtype.kind in "iuf" else record.strings(values)
