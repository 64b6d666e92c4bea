"""Factors and genes of a fit by name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae._said import said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Positions
    from sc_ldvae.record import JointRecord, Record

_EXAMPLES = 3
_log = logging.getLogger("sc_ldvae")


def factors_shown(stored: Record | JointRecord, factors: Sequence[int | str] | None) -> list[str]:
    """Names of factors that are named by number from 1 or by name; for None all that have not vanished.

    Raises
    ------
    ValueError
        If the fit has no such factor, it has vanished, or one is named twice.
    """
    if factors is None:
        return stored.names_left
    positions = factor_positions(stored, factors)
    gone = [stored.factor_names[k] for k in positions if stored.vanished[k]]
    if gone:
        left = ", ".join(map(repr, stored.names_left))
        msg = f"factors holds {gone[0]!r}, which has vanished: the cells do not support it. Factors left: {left}."
        raise ValueError(msg)
    return [stored.factor_names[k] for k in positions]


def factor_positions(stored: Record | JointRecord, factors: Sequence[int | str] | None) -> list[int]:
    """Positions from 0 of factors that are named by number from 1 or by name; all of them for None, vanished or not.

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


def gene_positions(stored: Record, genes: Sequence[str] | str | None, *, others: bool = False) -> Positions:
    """Positions of genes among those of the fit, with `others` among all that are known; all of them for None.

    Raises
    ------
    ValueError
        If a gene was not fitted, or is named twice.
    """
    (positions,) = gene_positions_by_modality(stored.views, genes, others=others).values()
    return positions


def gene_positions_by_modality(
    views: Mapping[str, Record], genes: Sequence[str] | str | None, *, others: bool = False
) -> dict[str, Positions]:
    """Positions of genes among those of each modality of a fit; all of them for None. Names may be in several.

    With `others`, genes outside of the fit of which the loadings are known come after those of the fit.

    Raises
    ------
    ValueError
        If a gene was fitted in none of them, or is named twice.
    """
    names = {name: view.known_genes if others else view.genes for name, view in views.items()}
    if genes is None:
        return {name: np.arange(len(own)) for name, own in names.items()}
    wanted = [genes] if isinstance(genes, str) else list(genes)
    known = {name: {gene: i for i, gene in enumerate(own.tolist())} for name, own in names.items()}
    unknown = [gene for gene in wanted if not any(gene in own for own in known.values())]
    if unknown:
        several = len(known) > 1
        number = "" if several else f"{sum(map(len, known.values()))} "
        where = f"{number}genes of the fit{' in any of its modalities' if several else ''}"
        advice = " sc_ldvae.tl.extend gives loadings to genes outside of a fit." if others else ""
        msg = f"genes holds {unknown[0]!r}, which is not among the {where}.{advice}"
        raise ValueError(msg)
    check_once(pd.Index(wanted, dtype=object), "genes")
    return {name: np.array([own[gene] for gene in wanted if gene in own], dtype=np.intp) for name, own in known.items()}


def known_places(adata: AnnData, stored: Record, level: int = logging.WARNING) -> Positions:
    """Position of each known gene among var_names, -1 for those that are gone.

    Of fitted genes that are gone the log tells at this level.

    Raises
    ------
    ValueError
        If none of them is there.
    """
    known = stored.known_positions_in(adata.var_names)
    places = known[: len(stored.genes)]
    gone = stored.genes[places < 0]
    if len(gone):
        what = f"{len(gone)} of the {len(places)} genes of the fit are not among var_names ({examples(gone)})"
        if len(gone) == len(places):
            msg = f"{what}. Were they renamed after the fit? Give var_names back, or fit again."
            raise ValueError(msg)
        _log.log(level, "%s: they are left out.", what)
    return known


def examples(names: np.ndarray) -> str:
    """The first few."""
    return ", ".join(map(said, names[:_EXAMPLES].tolist())) + (", ..." if len(names) > _EXAMPLES else "")


def check_once(names: pd.Index[str], argument: str) -> None:
    """Refuse names that are given twice."""
    repeated = names[names.duplicated()]
    if len(repeated):
        msg = f"{argument} holds {said(repeated[0])} more than once. Name each once."
        raise ValueError(msg)


def check_any(names: Sequence[int | str] | None, argument: str) -> None:
    """Refuse a list that names nothing."""
    if names is not None and not len(names):
        msg = f"{argument} is empty. Name at least one {argument.removesuffix('s')}, or leave it out."
        raise ValueError(msg)
