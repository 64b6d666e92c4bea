"""Where counts come from: one noun for every kind of array and file."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions

# Cells that a pass in order reads at once.
_READ = 8192


class Source(Protocol):
    """Counts of cells x genes, checked, wherever they live.

    A kind of source derives from this class. The last member is for those that can do better than to read what they
    are asked for into memory.
    """

    @property
    def n_obs(self) -> int:
        """Number of cells."""

    @property
    def n_vars(self) -> int:
        """Number of genes."""

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs, exact."""

    @property
    def nonzeros_per_cell(self) -> float:
        """How many genes a cell has counts of, on average."""

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order: canonical CSR in single precision."""

    def kept(self, cells: Positions) -> Source:
        """The cells at these positions, for what reads them in small parts, or again and again."""
        from sc_ldvae.counts._in_memory import InMemory

        return InMemory(self.rows(cells))


@singledispatch
def source_of(matrix: Any, name: str, genes: Positions | None = None) -> Source:  # noqa: ANN401, ARG001  the kinds decide
    """The counts in `matrix`, cells x genes.

    A kind of array registers how it is read, as ``source_of.register(kind)``.

    Parameters
    ----------
    matrix
        Counts of any number type. It is not changed.
    name
        What messages call it, such as ``"X"`` or ``"layers['counts']"``.
    genes
        Positions of the genes to read, in this order; all if None.

    Raises
    ------
    TypeError
        If there is no way to read such a thing, or if it does not hold numbers.
    ValueError
        If a value is missing, infinite, negative or not an integer.
    """
    msg = (
        f"{name} is a {type(matrix).__module__}.{type(matrix).__name__}; counts must be in a NumPy array, a SciPy "
        "sparse matrix, or a file that anndata has opened. Load them first (adata.to_memory())."
    )
    raise TypeError(msg)


def in_chunks(source: Source, cells: Positions, size: int) -> Iterator[tuple[slice, csr_matrix]]:
    """The cells at these positions in their order, so many at a time: which of `cells`, and their counts."""
    import numpy as np

    at_once = max(1, _READ // size) * size
    for begin in range(0, len(cells), at_once):
        part = source.kept(cells[begin : begin + at_once])
        for start in range(0, part.n_obs, size):
            own = np.arange(start, min(start + size, part.n_obs))
            yield slice(begin + start, begin + start + len(own)), part.rows(own)


def gene_totals(source: Source, cells: Positions, at_once: int = 4096, *, thresholded: bool = False) -> Floats:
    """Sum of each gene's counts over some of the cells, n_vars, exact; if `thresholded`, number of those with any."""
    import numpy as np

    totals = np.zeros(source.n_vars)
    for _, rows in in_chunks(source, cells, at_once):
        weights = None if thresholded else rows.data
        totals += np.bincount(rows.indices, weights, source.n_vars)
    return totals
