"""What decoding is asked for: factors of the cells, genes and where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sc_ldvae.decode import GeneColumns
from sc_ldvae.inputs._names import factor_positions, gene_positions, known_places

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae.record import Record

Covariates: TypeAlias = Mapping[str, str | float]
Factors: TypeAlias = Sequence[int | str] | Mapping[int | str, float | None] | int | str


def factor_values(stored: Record, factors: Factors | None) -> dict[int, float]:
    """Value of the factors that are set, by position from 0.

    Factors that a mapping gives None, and those that a sequence does not name, are dropped: they are set to 0.

    Raises
    ------
    ValueError
        If there is no such factor, or a value is missing or infinite.
    TypeError
        If a value is no number.
    """
    if factors is None:
        return {}
    if isinstance(factors, Mapping):
        wrong = [value for value in factors.values() if not isinstance(value, Real | None)]
        if wrong:
            msg = f"factors: a factor can't be set to {wrong[0]!r}. Give a number, or None."
            raise TypeError(msg)
        values = [0.0 if value is None else float(value) for value in factors.values()]
        if not np.isfinite(values).all():
            msg = f"factors: a factor can't be set to {values[np.isfinite(values).argmin()]}. Give a number, or None."
            raise ValueError(msg)
        return dict(zip(factor_positions(stored, list(factors)), values, strict=True))
    kept = factor_positions(stored, [factors] if isinstance(factors, int | np.integer | str) else factors)
    return {k: 0.0 for k in range(stored.n_latent) if k not in kept}


def gene_columns(
    adata: AnnData, stored: Record, genes: Sequence[str] | str | None, *, as_layer: bool, others: bool = False
) -> GeneColumns:
    """Which columns of a result genes fill: those as they are asked for, or with `as_layer` those of `adata`.

    With `others`, genes outside of the fit of which the loadings are known are among them.
    """
    chosen = gene_positions(stored, genes, others=others)
    if not as_layer:
        return GeneColumns(chosen, np.arange(len(chosen)), len(chosen))
    places = known_places(adata, stored)[chosen]
    return GeneColumns(chosen[places >= 0], places[places >= 0], adata.n_vars)
