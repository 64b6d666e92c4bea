"""Cells as a decoder sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from sc_ldvae.counts import Subset, in_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.counts import Source
    from sc_ldvae.record import Decoder


@dataclass(frozen=True)
class Decoded:
    """Counts, and what their distribution depends on; every array has one row per cell."""

    source: Source
    latent: Floats
    covariates: Floats
    library: Floats
    group: NDArray[np.int64]
    """Group of each cell, for parts of the likelihood with one value per group."""

    def rows(self, cells: Positions) -> Decoded:
        """The cells at these positions."""
        source = Subset(self.source, cells)
        return Decoded(source, self.latent[cells], self.covariates[cells], self.library[cells], self.group[cells])

    def pieces(self, size: int) -> Iterator[Decoded]:
        """So many cells at a time."""
        n_obs = len(self.latent)
        for start in range(0, n_obs, size):
            yield self.rows(np.arange(start, min(start + size, n_obs)))

    def chunks(self, size: int) -> Iterator[tuple[csr_matrix, Decoded]]:
        """So many cells at a time, with their counts."""
        for own, counts in in_chunks(self.source, np.arange(len(self.latent)), size):
            yield counts, self.rows(np.arange(own.start, own.stop))

    def eta(self, decoder: Decoder) -> Floats:
        """Log proportions up to a constant, n_obs x n_genes; without a library log expression."""
        return decoder.log_proportion(self.latent, self.covariates)

    def expression(self, decoder: Decoder) -> Floats:
        """Library times proportions, or what the linear map gives without, n_obs x n_genes, in single precision."""
        eta = self.eta(decoder).astype(np.float32)
        proportions = softmax(eta, axis=1) if decoder.likelihood.has_library else np.exp(eta)
        return self.library[:, None].astype(np.float32) * proportions

    def linear(self, decoder: Decoder) -> dict[str, Floats]:
        """Parts of the likelihood, n_obs x n_genes, as the decoder gives them."""
        return decoder.linear(self.latent, self.covariates, self.group)
