"""Products of tall matrices with the same last bits for any number of threads: a BLAS cuts long sums by theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats


def inner(one: Floats, other: Floats) -> NDArray[np.float64]:
    """``one.T @ other``, n_one x n_other, for two matrices of as many rows: genes or cells."""
    result: NDArray[np.float64] = np.einsum("gi,gj->ij", one, other, dtype=np.float64)
    return result


def product(rows: Floats, matrix: Floats) -> NDArray[np.float64]:
    """``rows @ matrix`` for the factors of genes or cells and a small matrix, n_rows x columns of the matrix."""
    result: NDArray[np.float64] = np.einsum("gi,ij->gj", rows, matrix, dtype=np.float64)
    return result
