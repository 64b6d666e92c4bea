"""Shares of the deviance: of all cells, by group of cells, factor by factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.assess._deviance import deviances_without

if TYPE_CHECKING:
    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.record import Decoder


@dataclass(frozen=True)
class Deviances:
    """Of each cell: null, model, without each factor, and with the first 0, 1, ... factors."""

    per_cell: Floats
    """n_cells x (2 + 2 * n_latent)."""

    @classmethod
    def of(cls, decoder: Decoder, decoded: Decoded, scored: Positions, null: Floats, bar: Bar) -> Deviances:
        """Of the `scored` cells; `null` holds the proportions under the null, n_genes."""
        n_latent = decoded.latent.shape[1]
        every = np.ones((n_latent, n_latent), dtype=bool)
        without = np.vstack([np.zeros((1, n_latent), dtype=bool), np.eye(n_latent, dtype=bool), np.triu(every)])
        chunks = []
        for chunk in deviances_without(decoder, decoded.rows(scored), without, null, decoded.latent.mean(0)):
            chunks.append(chunk)
            bar.update(len(chunk))
        return cls(np.concatenate(chunks))

    def shares(self) -> dict[str, Any]:
        """Shares of the null's deviance over all cells."""
        return _shares(self.per_cell.sum(0))

    def by_group(self, codes: np.ndarray, names: list[str]) -> dict[str, Any]:
        """The same for each group that has cells; `codes` is the group of each cell, -1 without one."""
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        found = np.flatnonzero(sizes)
        sums = np.stack([self.per_cell[codes == group].sum(0) for group in found])
        return _shares(sums) | {"name": np.array([names[i] for i in found], dtype=str), "n_cells": sizes[found]}


def _shares(deviances: Floats) -> dict[str, Any]:
    """Out of sums over cells, which may be one row per group."""
    n_latent = (deviances.shape[-1] - 2) // 2
    null, model = deviances[..., :1], deviances[..., 1:2]
    without, first = deviances[..., 2 : 2 + n_latent], deviances[..., 2 + n_latent :]
    ends = np.concatenate([first[..., 1:], model], axis=-1)
    shares = {
        "total": (1 - model / null)[..., 0],
        "base": (1 - first[..., :1] / null)[..., 0],
        "marginal": (without - model) / null,
        "cumulative": 1 - ends / null,
    }
    return {name: share if np.ndim(share) else float(share) for name, share in shares.items()}
