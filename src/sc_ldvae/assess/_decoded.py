"""Cells as a decoder sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.counts import Subset, in_chunks
from sc_ldvae.kernels import matmul

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

    def eta(self, decoder: Decoder) -> NDArray[np.float32]:
        """Log proportions up to a constant, n_obs x n_genes; without a library log expression."""
        inputs = np.hstack([self.latent, self.covariates, np.ones((len(self.latent), 1))], dtype=np.float32)
        return matmul(inputs, decoder.log_proportion.matrix())

    def expression(self, decoder: Decoder) -> NDArray[np.float32]:
        """Library times proportions, or what the linear map gives without, n_obs x n_genes, in single precision."""
        values, scale = self.eta(decoder), self.library.astype(np.float32)
        if decoder.likelihood.has_library:
            values -= values.max(1, keepdims=True)
        np.exp(values, out=values)
        if decoder.likelihood.has_library:
            scale /= values.sum(1)
        values *= scale[:, None]
        return values

    def linear(self, decoder: Decoder) -> dict[str, Floats]:
        """Parts of the likelihood, n_obs x n_genes, as the decoder gives them."""
        return decoder.linear(self.latent, self.covariates, self.group)
