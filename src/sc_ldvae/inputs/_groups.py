"""Groups of cells that are to be compared, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sc_ldvae.inputs._modality import obs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

_FEWEST_CELLS = 2


def grouped(adata: AnnData, groupby: str) -> tuple[np.ndarray, list[str]]:
    """Group of each cell, -1 without one, and the names of the groups."""
    obs = obs_of(adata)
    if groupby not in obs.columns:
        msg = f"groupby={groupby!r} is not a column of obs. Columns: {', '.join(map(repr, obs.columns)) or 'none'}."
        raise ValueError(msg)
    column = pd.Categorical(obs[groupby]).remove_unused_categories()
    return column.codes.astype(np.int64), [str(name) for name in column.categories]


def tests_of(
    codes: np.ndarray, names: list[str], groupby: str, groups: Literal["all"] | Iterable[str], reference: str
) -> tuple[list[str], np.ndarray]:
    """Groups to characterise, and the position of each and of its reference (-1: rest)."""
    if isinstance(groups, str) and groups != "all":
        msg = f"groups must be 'all' or a list of groups: [{groups!r}]."
        raise TypeError(msg)
    if len(names) < 2:  # noqa: PLR2004  a comparison has two sides
        msg = f"groupby: obs[{groupby!r}] has {len(names)} groups, but a comparison needs two."
        raise ValueError(msg)
    asked = names if groups == "all" else [str(group) for group in groups]
    for group in [*asked, *([reference] if reference != "rest" else [])]:
        if group not in names:
            msg = f"{group!r} is not a group of obs[{groupby!r}]. Groups: {', '.join(map(repr, names))}."
            raise ValueError(msg)
    chosen = [group for group in asked if group != reference]
    if not chosen:
        msg = f"groups names no group beside the reference {reference!r}. Name at least one."
        raise ValueError(msg)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    other = -1 if reference == "rest" else names.index(reference)
    tests = np.array([[names.index(group), other] for group in chosen], dtype=np.int64).reshape(-1, 2)
    for group, (own, against) in zip(chosen, tests, strict=True):
        n_reference = sizes.sum() - sizes[own] if against < 0 else sizes[against]
        for name, size in ((group, sizes[own]), (reference, n_reference)):
            if size < _FEWEST_CELLS:
                msg = (
                    f"{name!r} has {size} cells in obs[{groupby!r}], too few to compare. Leave it out, or merge groups."
                )
                raise ValueError(msg)
    return chosen, tests
