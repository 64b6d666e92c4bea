"""Which cells a fit is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sc_ldvae import record

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Mask, Positions
    from sc_ldvae.assess import Decoded

Scored = Literal["held_out", "all"]


def judged_by(adata: AnnData, stored: record.Record, cells: Scored) -> tuple[Mask, Mask]:
    """Which cells to judge by, and which the null's proportions come from, n_obs each."""
    if cells not in get_args(Scored):
        msg = f"cells={cells!r} is unknown. Choose one of {', '.join(map(repr, get_args(Scored)))}."
        raise ValueError(msg)
    every = np.ones(adata.n_obs, dtype=bool)
    held_out = record.held_out(adata, stored)
    if cells == "held_out" and not held_out.any():
        msg = "cells='held_out', but no cell was held out from the fit. Pass cells='all'."
        raise ValueError(msg)
    return held_out if cells == "held_out" else every, every if held_out.all() else ~held_out


def with_counts(stored: record.Record, decoded: Decoded, scored: Mask) -> Mask:
    """Those of the cells that can be judged: thinning may leave one without counts in either part."""
    return scored & (decoded.source.totals > 0) & (decoded.library > 0) if stored.has_library else scored


def check_some(scored: Mask, codes: np.ndarray, groupby: str | None, thinned: float | None) -> None:
    if not scored.any():
        msg = f"thinned={thinned} leaves no count to judge by. Give a share nearer to 0.5."
        raise ValueError(msg)
    if groupby is not None and not (codes[scored] >= 0).any():
        msg = f"groupby: obs[{groupby!r}] has no group for any of the {scored.sum()} cells. Fill it, or leave it out."
        raise record.ObsError(msg)


def measured(scored: Mask, cells: Scored, groupby: str | None) -> Positions:
    """Those of the scored cells to measure: all of them where that was asked, or where groups may have few."""
    from sc_ldvae.assess import cells_for_deviance

    every = np.flatnonzero(scored)
    return cells_for_deviance(every) if cells == "held_out" and groupby is None else every
