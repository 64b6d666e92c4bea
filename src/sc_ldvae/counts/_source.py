"""Where counts come from: one noun for every kind of array and file."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions


class Permuting(Protocol):
    """What shuffles: a NumPy generator, or anything that permutes as it does."""

    def permutation(self, n: int) -> Positions:
        """The numbers below `n` in random order."""


class Source(Protocol):
    """Counts of cells x genes, checked, wherever they live."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""

    @property
    def n_vars(self) -> int:
        """Number of genes."""

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs, exact."""

    def rows(self, cells: Positions) -> csr_matrix:
        """Counts of the cells at these positions, in their order: canonical CSR in single precision."""

    def shuffled(self, cells: Positions, rng: Permuting) -> Positions:
        """The cells in a random order, one that the store reads well."""


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
        f"{name} is a {type(matrix).__module__}.{type(matrix).__name__}; counts must be in memory as a NumPy array "
        "or a SciPy sparse matrix. Load them first (adata.to_memory(), or .compute() for dask)."
    )
    raise TypeError(msg)


def gene_totals(source: Source, cells: Positions, at_once: int = 4096) -> Floats:
    """Sum of each gene's counts over some of the cells, n_vars, exact."""
    import numpy as np

    totals = np.zeros(source.n_vars)
    for start in range(0, len(cells), at_once):
        rows = source.rows(cells[start : start + at_once])
        totals += np.bincount(rows.indices, weights=rows.data, minlength=source.n_vars)
    return totals
