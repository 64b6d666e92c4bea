"""Modalities of the same cells beside each other, and one of them out of these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, hstack

from sc_ldvae.counts._source import Source, in_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions

# Cells whose counts are summed up at once.
_AT_ONCE = 4096


@dataclass(frozen=True)
class Between(Source):
    """Genes of a source that follow each other: those of one modality."""

    source: Source
    start: int
    stop: int

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.stop - self.start

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        totals = np.empty(self.n_obs)
        for own, counts in in_chunks(self, np.arange(self.n_obs), _AT_ONCE):
            totals[own] = counts.sum(1, dtype=np.float64).A1
        return totals

    @property
    def nonzeros_per_cell(self) -> float:
        """At most that of the source."""
        return self.source.nonzeros_per_cell

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        from sc_ldvae.kernels import rows_between

        counts, everyone = self.source.rows(cells), np.arange(len(cells))
        pointers, genes, values = rows_between(
            counts.indptr, counts.indices, counts.data, everyone, self.start, self.stop
        )
        return csr_matrix((values, genes, pointers), shape=(len(cells), self.n_vars))


@dataclass(frozen=True)
class Beside(Source):
    """Modalities of the same cells, side by side; a cell that lacks one has no counts there."""

    sources: tuple[Source, ...]
    places: NDArray[np.int64]
    """Position of each cell in each source, -1 where it is not, n_obs x sources."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.places)

    @property
    def n_vars(self) -> int:
        """Number of genes of all of them."""
        return sum(source.n_vars for source in self.sources)

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts in all of them, n_obs."""
        totals = np.zeros(self.n_obs)
        for source, places in zip(self.sources, self.places.T, strict=True):
            totals[places >= 0] += source.totals[places[places >= 0]]
        return totals

    @property
    def nonzeros_per_cell(self) -> float:
        """How many genes a cell has counts of, on average."""
        nonzeros = sum(source.nonzeros_per_cell * source.n_obs for source in self.sources)
        return nonzeros / max(1, self.n_obs)

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        blocks = []
        for source, places in zip(self.sources, self.places[cells].T, strict=True):
            has = places >= 0
            blocks.append(among_empty(source.rows(places[has]), np.flatnonzero(has), len(cells)))
        return hstack(blocks, format="csr", dtype=np.float32)


def among_empty(rows: csr_matrix, places: Positions, n: int) -> csr_matrix:
    """These rows at ascending `places` among `n`, of which all others are empty."""
    pointers = np.zeros(n + 1, rows.indptr.dtype)
    pointers[1 + places] = np.diff(rows.indptr)
    np.cumsum(pointers, out=pointers)
    return csr_matrix((rows.data, rows.indices, pointers), shape=(n, rows.shape[1]))
