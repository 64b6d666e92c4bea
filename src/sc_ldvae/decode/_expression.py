"""Expression proportions, averaged over draws of the latent and over settings of the covariates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from sc_ldvae.kernels import add_proportions, n_slices, own_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.record import Decoder, State

# Cells that are decoded at once.
CHUNK = 1024


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
    """Mean proportions of some genes, over draws and settings, scaled; without a library mean expression."""

    decoder: Decoder
    genes: Positions
    """Positions of the wanted genes among those that are known."""
    places: Positions
    """Columns of the result that they fill."""

    @cached_property
    def _n_fitted(self) -> int:
        return len(self.decoder.log_proportion.intercept)

    @cached_property
    def _chosen(self) -> Positions:
        """Columns of the matrix for the wanted genes: those of the fit, and after them the wanted others."""
        chosen, others = self.genes.copy(), self.genes >= self._n_fitted
        chosen[others] = self._n_fitted + np.arange(others.sum())
        return chosen

    @cached_property
    def _matrix(self) -> Floats:
        others = self.genes[self.genes >= self._n_fitted]
        if not len(others):
            return self.decoder.log_proportion.matrix()
        return self.decoder.known.of_genes(np.concatenate([np.arange(self._n_fitted), others])).matrix()

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
        every = np.arange(self._matrix.shape[1])
        chosen: tuple[Positions | None, Positions | None] = (self._chosen, self.places)
        if np.array_equal(self._chosen, every) and np.array_equal(self.places, every):
            # Columns that follow each other are written in vector instructions.
            chosen = (None, None)
        ones = np.ones((len(out), 1))
        draws = [np.hstack([latent, design, ones]) for latent, design in product(latents, designs)]
        u = np.array(draws, dtype=np.float32)
        slices = n_slices(len(u) * len(out) * len(every))
        with own_threads():
            n_competing = self._n_fitted if self.decoder.likelihood.has_library else 0
            add_proportions(slices, u, self._matrix, n_competing, *chosen, scale.astype(np.float32), out)
