"""What a decoded cell is asked to be: its batch, its covariates, its factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sc_ldvae.get._frames import factor_positions, gene_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae.record import Record

    Covariates: TypeAlias = Mapping[str, str | float]
    Factors: TypeAlias = Sequence[int | str] | Mapping[int | str, float | None] | int | str

__all__ = ["factor_values", "gene_positions"]


def factor_values(fit: Record, factors: Factors | None) -> dict[int, float]:
    """Value of the factors that are set, by position from 0.

    Factors that a mapping gives None, and those that a sequence does not name, are dropped: they are set to 0.
    """
    if factors is None:
        return {}
    if isinstance(factors, Mapping):
        values = [0.0 if value is None else float(value) for value in factors.values()]
        return dict(zip(factor_positions(fit, list(factors)), values, strict=True))
    kept = factor_positions(fit, [factors] if isinstance(factors, int | np.integer | str) else factors)
    return {k: 0.0 for k in range(fit.n_latent) if k not in kept}
