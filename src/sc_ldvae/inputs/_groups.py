"""Groups of cells that are to be compared, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sc_ldvae.inputs._modality import obs_for, pick_modality, told_whose
from sc_ldvae.inputs._names import check_once
from sc_ldvae.record import ObsError, column_of, levels_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sc_ldvae._typing import Data

_FEWEST_CELLS = 2


def grouped(data: Data, modality: str | None, groupby: str) -> tuple[np.ndarray, list[str]]:
    """Group of each cell, -1 without one, and the names of the groups; of a modality also by what its MuData knows.

    A MuData without a modality has groups of its own.
    """
    obs = obs_for(data, modality)
    with told_whose(data, data if modality is None else pick_modality(data, modality), and_all=True):
        return levels_of(column_of(obs, groupby, "groupby"), groupby, "groupby")


def tests_of(
    codes: np.ndarray,
    names: list[str],
    groupby: str,
    groups: Literal["all"] | Iterable[str | float],
    reference: str | float,
) -> tuple[list[str], np.ndarray]:
    """Groups to characterise, and the position of each and of its reference (-1: rest).

    ``'rest'`` is all other cells, also where a group is called so.

    Raises
    ------
    ObsError
        If obs has no such groups, or too few cells of them.
    TypeError, ValueError
        If what is asked is none.
    """
    if isinstance(groups, str) and groups != "all":
        msg = f"groups must be 'all' or a list of groups: [{groups!r}]."
        raise TypeError(msg)
    reference = str(reference)
    if len(names) < 2:  # noqa: PLR2004  a comparison has two sides
        msg = f"groupby: obs[{groupby!r}] has {len(names)} groups, but a comparison needs two."
        raise ObsError(msg)
    asked = names if isinstance(groups, str) else [str(group) for group in groups]
    check_once(pd.Index(asked, dtype=object), "groups")
    known = {"groups": (asked, names), "reference": ([reference], [*names, "rest"])}
    for argument, (given, choices) in known.items():
        unknown = [group for group in given if group not in choices]
        if unknown:
            what = f"{argument}: {unknown[0]!r} is not a group of obs[{groupby!r}]"
            msg = f"{what}. Groups: {', '.join(map(repr, names))}."
            raise ObsError(msg)
    chosen = [group for group in asked if reference == "rest" or group != reference]
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
                raise ObsError(msg)
    return chosen, tests
