"""Tables with several rows for each factor, as frames."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae.inputs import factors_shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sc_ldvae._typing import Data


def stored_table(
    data: Data,
    stored: record.Record | record.JointRecord,
    name: str,
    tool: str,
    columns: Sequence[str],
    factors: Sequence[int | str] | None,
    later: Mapping[str, float] = MappingProxyType({}),
) -> pd.DataFrame:
    """The rows of ``data.uns[name]`` that belong to `factors`: `factor`, whose categories are in order, and `columns`.

    Of columns that came `later`, results of older versions have the value that is given.

    Raises
    ------
    ValueError
        If there is no such table, or if it says nothing of a factor that is named.
    """
    result = record.read_result(data, name, tool, ("factor", *columns), stored)
    frame = pd.DataFrame({column: np.atleast_1d(result[column]) for column in ("factor", *columns)})
    frame = frame.assign(**{column: result.get(column, otherwise) for column, otherwise in later.items()})
    chosen = factors_shown(stored, factors)
    absent = [factor for factor in chosen if factor not in set(frame["factor"])]
    if factors is not None and absent:
        msg = f"factors holds {absent[0]!r}, which is not in uns[{name!r}]. Call sc_ldvae.tl.{tool} for it."
        raise ValueError(msg)
    frame = frame[frame["factor"].isin(chosen)]
    return frame.assign(factor=pd.Categorical(frame["factor"], categories=chosen))


def strongest_first(frame: pd.DataFrame, strength: pd.Series, index: str) -> pd.DataFrame:
    """Rows factor by factor, in each by decreasing strength, indexed by factor and another column."""
    order = np.lexsort((-strength, frame["factor"].cat.codes))
    return frame.assign(factor=frame["factor"].astype(str)).iloc[order].set_index(["factor", index])
