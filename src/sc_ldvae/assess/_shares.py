"""Shares of the deviance: of all cells, by group of cells, factor by factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.assess._deviance import deviances_without
from sc_ldvae.assess._nested import in_order, nested, taken_away

if TYPE_CHECKING:
    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.record import Decoder


@dataclass(frozen=True)
class Deviances:
    """Of each cell: under the null, without each of the `nested` sets of factors, and without each factor."""

    per_cell: Floats
    """n_cells x (1 + 3 * number of factors that are left)."""
    order: Positions
    """Of the factors that are left, as the sets have them."""
    n_latent: int

    @classmethod
    def of(cls, decoder: Decoder, decoded: Decoded, scored: Positions, null: Floats, bar: Bar) -> Deviances:
        """Of the `scored` cells; `null` holds the proportions under the null, n_genes."""
        cells, n_latent = decoded.rows(scored), decoded.latent.shape[1]
        order = in_order(decoder, cells)
        without = np.vstack([nested(order, n_latent), np.eye(n_latent, dtype=bool)[order]])
        return cls(np.concatenate(list(deviances_without(decoder, cells, without, null, bar))), order, n_latent)

    def shares(self) -> dict[str, Any]:
        """Shares of the null's deviance over all cells."""
        return self._shares(self.per_cell.sum(0))

    def by_group(self, codes: np.ndarray, names: list[str]) -> dict[str, Any]:
        """The same for each group that has cells; `codes` is the group of each cell, -1 without one."""
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        found = np.flatnonzero(sizes)
        sums = np.stack([self.per_cell[codes == group].sum(0) for group in found])
        return self._shares(sums) | {"name": np.array([names[i] for i in found], dtype=str), "n_cells": sizes[found]}

    def _shares(self, sums: Floats) -> dict[str, Any]:
        """Out of sums over cells, which may be one row per group."""
        n_left = len(self.order)
        null, sets = sums[..., :1], sums[..., 1:]
        total, base = 1 - sets[..., :1] / null, 1 - sets[..., n_left : n_left + 1] / null
        share = taken_away(sets, self.order, self.n_latent) / null
        marginal = np.zeros_like(share)
        marginal[..., self.order] = (sets[..., sets.shape[-1] - n_left :] - sets[..., :1]) / null
        shares = {
            "total": total[..., 0],
            "base": base[..., 0],
            "share": share,
            "marginal": marginal,
            "cumulative": base + np.cumsum(share, axis=-1),
        }
        return {name: share if np.ndim(share) else float(share) for name, share in shares.items()}
