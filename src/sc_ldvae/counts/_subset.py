"""Some of the cells of a source, or its genes among others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts._source import Permuting, Source


@dataclass(frozen=True)
class Subset:
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

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        return self.source.rows(self.cells[cells])

    def shuffled(self, cells: Positions, rng: Permuting) -> Positions:
        """The cells in a random order."""
        return cells[rng.permutation(len(cells))]


@dataclass(frozen=True)
class WithColumns:
    """The genes of a source at ascending places among others, of which no cell has counts."""

    source: Source
    places: Positions
    n_vars: int

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        return self.source.totals

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order."""
        rows = self.source.rows(cells)
        return csr_matrix((rows.data, self.places[rows.indices], rows.indptr), shape=(len(cells), self.n_vars))

    def shuffled(self, cells: Positions, rng: Permuting) -> Positions:
        """The cells in the order of the source."""
        return self.source.shuffled(cells, rng)
