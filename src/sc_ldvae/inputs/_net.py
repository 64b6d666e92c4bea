"""Gene sets and regulons as decoupler has them, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae._said import said

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats


def targets_of(net: object, genes: pd.Index, tmin: int, *, independent: bool) -> tuple[Floats, pd.Series]:
    """Weights, genes x sources, and the number of targets of each source; `independent`: no source is a sum of others.

    Raises
    ------
    TypeError, ValueError
        If `net` is no frame of sources and targets, or has no source with enough targets.
    """
    net = _checked(net)
    known = net["target"].isin(genes)
    n_targets = net[known].groupby("source").size()
    n_targets = n_targets[n_targets >= tmin]
    if n_targets.empty:
        msg = (
            f"net has no source with {tmin} or more targets among the {len(genes)} fitted genes: {known.sum()} of its "
            f"{len(net)} targets are fitted genes{_mismatch(net['target'][~known], genes)}. Name genes in the same way "
            "in both, fit more genes, or lower tmin."
        )
        raise ValueError(msg)
    used = net[known & net["source"].isin(n_targets.index)]
    weights = np.zeros((len(genes), len(n_targets)))
    weights[genes.get_indexer(pd.Index(used["target"])), n_targets.index.get_indexer(pd.Index(used["source"]))] = used[
        "weight"
    ]
    uniform = n_targets.index[np.ptp(weights, axis=0) == 0]
    if len(uniform):
        source = said(uniform[0])
        msg = f"net gives all fitted genes the same weight in the source {source}: nothing to compare. Remove it."
        raise ValueError(msg)
    if independent and np.linalg.matrix_rank(weights - weights.mean(axis=0)) < len(n_targets):
        msg = (
            f"method='mlm' can't tell the {len(n_targets)} sources of net apart: on the fitted genes some are sums of "
            "others. Remove these, or take method='ulm'."
        )
        raise ValueError(msg)
    return weights, n_targets


def _checked(net: object) -> pd.DataFrame:
    """`source`, `target` and `weight`, one row per source and target."""
    if not isinstance(net, pd.DataFrame):
        msg = f"net is a {type(net).__name__}, but must be a DataFrame with the columns 'source' and 'target'."
        raise TypeError(msg)
    absent = [column for column in ("source", "target") if column not in net]
    if absent:
        msg = (
            f"net has no column {absent[0]!r}. Columns: {', '.join(map(said, net)) or 'none'}. "
            f"Rename one: net.rename(columns={{...: {absent[0]!r}}})."
        )
        raise ValueError(msg)
    names = net[["source", "target"]]
    if names.isna().to_numpy().any():
        msg = f"net names no source or target in {names.isna().any(axis=1).sum()} of {len(net)} rows. Remove those."
        raise ValueError(msg)
    checked = names.astype(str).assign(weight=_numbers(net)).drop_duplicates()
    twice = checked.duplicated(["source", "target"])
    if twice.any():
        source, target = checked.loc[twice, ["source", "target"]].iloc[0]
        msg = (
            f"net gives different weights to the target {said(target)} of the source {said(source)}. Keep one of them."
        )
        raise ValueError(msg)
    return checked


def _numbers(net: pd.DataFrame) -> Floats:
    if "weight" not in net:
        return np.ones(len(net))
    numbers = pd.to_numeric(net["weight"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers)
    if bad.any():
        example = net["weight"].to_numpy()[bad][0]
        msg = (
            f"net has weights that are not finite numbers (for example {said(example)}). Remove them, or give numbers."
        )
        raise ValueError(msg)
    return numbers


def _mismatch(strangers: pd.Series, genes: pd.Index) -> str:
    return f" (not {said(strangers.iloc[0])}; a fitted gene is {str(genes[0])!r})" if len(strangers) else ""
