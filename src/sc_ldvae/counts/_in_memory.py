"""Counts in memory: NumPy arrays and SciPy's sparse matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sc_ldvae.counts._check import check_counts
from sc_ldvae.counts._source import Source, source_of
from sc_ldvae.counts._subset import Subset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions

# Rows that are summed at once, for a sum takes eight bytes per count.
_ROWS = 2**14


@dataclass(frozen=True)
class InMemory(Source):
    """A canonical CSR matrix in single precision, as `check_counts` gives it."""

    matrix: sparse.csr_matrix

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return int(self.matrix.shape[0])

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return int(self.matrix.shape[1])

    @property
    def nonzeros_per_cell(self) -> float:
        """How many genes a cell has counts of, on average."""
        return int(self.matrix.indptr[-1]) / max(1, self.n_obs)

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        totals = np.empty(self.n_obs)
        for start in range(0, self.n_obs, _ROWS):
            pointers = self._pointers[start : start + _ROWS + 1]
            # In double precision the sums of integers are exact, so that the order of the genes can't change a total.
            sums = np.zeros(pointers[-1] - pointers[0] + 1)
            np.cumsum(self.matrix.data[pointers[0] : pointers[-1]], dtype=np.float64, out=sums[1:])
            totals[start : start + _ROWS] = np.diff(sums[pointers - pointers[0]])
        return totals

    def rows(self, cells: Positions) -> sparse.csr_matrix:
        """Counts of the cells at these positions, in their order."""
        from sc_ldvae.kernels import gather_rows

        pointers, genes, values = gather_rows(self._pointers, self.matrix.indices, self.matrix.data, cells)
        return sparse.csr_matrix((values, genes, pointers), shape=(len(cells), self.n_vars))

    def kept(self, cells: Positions) -> Source:
        """The cells at these positions; memory reads all alike."""
        return Subset(self, cells)

    @cached_property
    def _pointers(self) -> NDArray[np.int64]:
        return self.matrix.indptr.astype(np.int64)


@source_of.register(np.ndarray)
@source_of.register(sparse.spmatrix)
@source_of.register(sparse.sparray)
def _in_memory(matrix: Any, name: str, genes: Positions | None = None) -> InMemory:  # noqa: ANN401  any of these
    return InMemory(check_counts(matrix, name, genes))
