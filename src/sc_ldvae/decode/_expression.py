"""Expression proportions, averaged over draws of the latent and over settings of the covariates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from sc_ldvae.nn._fused import add_proportions, as_many_threads_as_torch, n_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae.record import AffineMap, State

    Floats = NDArray[np.floating[Any]]

# Cells that are decoded at once.
CHUNK = 4096


def draw_latent(state: State, rng: np.random.Generator, *, composition: bool) -> Floats:
    """One draw of each cell's latent from its posterior, n_obs x n_latent; `composition`: for 'ln'."""
    noise = rng.standard_normal(state.latent.shape, dtype=np.float32) * np.sqrt(state.variance)
    if not composition:
        return state.latent + noise
    # The softmax takes out again what the log of a softmax lacks, a constant per cell.
    logs = np.log(np.maximum(state.latent, np.finfo(np.float32).tiny))
    return softmax(logs + noise, axis=1)


@dataclass(frozen=True)
class Expression:
    """Mean proportions of some genes, over draws and settings, scaled."""

    log_proportion: AffineMap
    genes: NDArray[np.intp]
    """Positions of the wanted genes among those of the fit."""
    places: NDArray[np.intp]
    """Columns of the result that they fill."""

    @cached_property
    def _decoder(self) -> Floats:
        return self.log_proportion.matrix()

    def add(self, latents: Sequence[Floats], designs: Sequence[Floats], scale: Floats, out: Floats) -> None:
        """Add `scale` times the mean of the proportions over all latents and designs.

        Parameters
        ----------
        latents, designs
            Draws of the latent, n_obs x n_latent each, and settings of the covariates, n_obs x columns each.
        scale
            n_obs.
        out
            n_obs x columns of the result; changed.
        """
        weights = (scale / (len(latents) * len(designs))).astype(np.float32)
        parts = n_parts(len(out) * self._decoder.shape[1])
        with as_many_threads_as_torch():
            for latent, design in product(latents, designs):
                u = np.hstack([latent, design, np.ones((len(latent), 1))]).astype(np.float32)
                add_proportions(parts, u, self._decoder, self.genes, self.places, weights, out)
