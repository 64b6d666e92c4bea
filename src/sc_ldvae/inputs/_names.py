"""Factors and genes of a fit by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Positions
    from sc_ldvae.record import Record


def factor_positions(stored: Record, factors: Sequence[int | str] | None) -> list[int]:
    """Positions from 0 of factors that are named by number from 1 or by name; all of them for None.

    Raises
    ------
    ValueError
        If the fit has no such factor, or one is named twice.
    """
    names = stored.factor_names
    if factors is None:
        return list(range(len(names)))
    known = {name: k for k, name in enumerate(names)} | {k + 1: k for k in range(len(names))}
    unknown = [factor for factor in factors if factor not in known]
    if unknown:
        msg = f"factors holds {unknown[0]!r}, but factors are 1 to {len(names)}, or {names[0]!r} to {names[-1]!r}."
        raise ValueError(msg)
    positions = [known[factor] for factor in factors]
    check_once(pd.Index([names[k] for k in positions], dtype=object), "factors")
    return positions


def gene_positions(stored: Record, genes: Sequence[str] | str | None) -> Positions:
    """Positions of genes among those of the fit; all of them for None.

    Raises
    ------
    ValueError
        If a gene was not fitted, or is named twice.
    """
    if genes is None:
        return np.arange(len(stored.genes))
    wanted = [genes] if isinstance(genes, str) else list(genes)
    known = {gene: i for i, gene in enumerate(stored.genes.tolist())}
    unknown = [gene for gene in wanted if gene not in known]
    if unknown:
        msg = f"genes holds {unknown[0]!r}, which is not among the {len(known)} genes of the fit."
        raise ValueError(msg)
    check_once(pd.Index(wanted, dtype=object), "genes")
    return np.array([known[gene] for gene in wanted], dtype=np.intp)


def check_once(names: pd.Index[str], argument: str) -> None:
    """Refuse names that are given twice."""
    repeated = names[names.duplicated()]
    if len(repeated):
        msg = f"{argument} holds {repeated[0]!r} more than once. Name each once."
        raise ValueError(msg)
