"""What plots of loadings call genes, factors and units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae.inputs import check_any, check_once, factors_shown
from sc_ldvae.record import held_out

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import Any

    from sc_ldvae._typing import Data
    from sc_ldvae.assess import Method
    from sc_ldvae.get import Per
    from sc_ldvae.record import JointRecord, Record


def unit_of(per: Per, *, log2: bool) -> str:
    """Two lines: the kind of fold change, and what it is for."""
    step = "standard deviation" if per == "sd" else "unit"
    return f"{'log2' if log2 else 'ln'} fold change\nper {step} of the factor"


def listed(stored: Record | JointRecord, factors: Sequence[int | str] | int | str | None) -> list[str]:
    """Names of the factors to draw, also of a single one; for None of all that have not vanished.

    Raises
    ------
    ValueError
        If there is none, or no such one.
    """
    chosen = [factors] if isinstance(factors, int | np.integer | str) else factors
    check_any(chosen, "factors")
    return factors_shown(stored, chosen)


def factor_titles(stored: Record | JointRecord, rotation: Method | None) -> dict[str, str]:
    """``'Factor 1'`` for ``'ldvae1'``, and so on; with the rotation, if there is one."""
    suffix = "" if rotation is None else f" ({rotation})"
    return {name: f"Factor {k}{suffix}" for k, name in enumerate(stored.factor_names, start=1)}


def factor_numbers(stored: Record | JointRecord, factors: Iterable[str]) -> list[str]:
    """``'1'`` for ``'ldvae1'``, and so on, where there is no room for titles."""
    return [str(1 + stored.factor_names.index(name)) for name in factors]


def vanished(stored: Record | JointRecord, factors: Sequence[int | str] | int | str | None) -> str:
    """How many factors are not shown, for the cells do not support them; empty where some were chosen by name."""
    gone = stored.vanished
    return f"{gone.sum()} of {len(gone)} factors vanished" if factors is None and gone.any() else ""


def judged_by(attrs: Mapping[Hashable, Any]) -> str:
    """Which cells, how many if it is known, and how much of their counts, shares of deviance were measured on."""
    number = f"{attrs['n_cells']:,} " if "n_cells" in attrs else ""
    cells = {"held_out": f"{number}held-out cells", "all": f"all {number}cells", "training": "cells of the fit"}[
        attrs["cells"]
    ]
    return f"{cells}, {100 * attrs['thinned']:g} % of their counts" if attrs["thinned"] else cells


def of_the_fit(whose: Data, stored: Record | JointRecord) -> dict[Hashable, Any]:
    """The same of what the fit of an AnnData or MuData measured itself."""
    return {"cells": "held_out" if held_out(whose, stored).any() else "training", "thinned": 0.0}


def associated(known: pd.Series[str], keys: Sequence[str] | str) -> list[str]:
    """Columns of obs that are named.

    Raises
    ------
    ValueError
        If there is none, if one is not `known` to be associated, or if one is named twice.
    """
    names = [keys] if isinstance(keys, str) else list(keys)
    check_any(names, "keys")
    unknown = [one for one in names if one not in set(known)]
    if unknown:
        msg = f"keys holds {unknown[0]!r}, which was not associated. Call sc_ldvae.tl.associate with it."
        raise ValueError(msg)
    check_once(pd.Index(np.array(names, dtype=object)), "keys")
    return names


def check_genes(fitted: pd.Index[str], genes: Sequence[str] | str) -> pd.Index[str]:
    """The genes as an index.

    Raises
    ------
    ValueError
        If there is none, if one was not fitted or has left the object, or if one is named twice.
    """
    names = [genes] if isinstance(genes, str) else list(genes)
    check_any(names, "genes")
    chosen = pd.Index(names, dtype=object)
    unknown = chosen[~chosen.isin(fitted)]
    if len(unknown):
        msg = (
            f"genes holds {unknown[0]!r}, which is not among the {len(fitted)} genes of the object that have loadings."
        )
        raise ValueError(msg)
    check_once(chosen, "genes")
    return chosen
