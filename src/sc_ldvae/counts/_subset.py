"""Some of the cells of a source, or its genes among others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.sparse import csr_matrix

from sc_ldvae.counts._source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions


@dataclass(frozen=True)
class Subset(Source):
    """Cells of a source by position, in which a cell may be repeated."""

    source: Source
    cells: Positions

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.cells)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.source.n_vars

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        return self.source.totals[self.cells]

    @property
    def nonzeros_per_cell(self) -> float:
        """That of the source, which is near enough."""
        return self.source.nonzeros_per_cell

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        return self.source.rows(self.cells[cells])

    def kept(self, cells: Positions) -> Source:
        """The cells at these positions, as the source keeps them."""
        return self.source.kept(self.cells[cells])


@dataclass(frozen=True)
class WithColumns(Source):
    """The genes of a source at ascending places among others, of which no cell has counts."""

    source: Source
    places: Positions
    n_columns: int
    """Of these genes and the others."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    @property
    def n_vars(self) -> int:
        """Number of genes, these and the others."""
        return self.n_columns

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        return self.source.totals

    @property
    def nonzeros_per_cell(self) -> float:
        """How many genes a cell has counts of, on average."""
        return self.source.nonzeros_per_cell

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        rows = self.source.rows(cells)
        return csr_matrix((rows.data, self.places[rows.indices], rows.indptr), shape=(len(cells), self.n_vars))

    def kept(self, cells: Positions) -> Source:
        """The cells at these positions, as the source keeps them."""
        return WithColumns(self.source.kept(cells), self.places, self.n_columns)
