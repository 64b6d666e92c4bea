"""Products of tall matrices with the same last bits for any number of threads: a BLAS cuts long sums by theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats


def inner(one: Floats, other: Floats) -> Floats:
    """``one.T @ other``, n_one x n_other, for two matrices of as many rows: genes or cells."""
    return np.einsum("gi,gj->ij", one, other)


def product(rows: Floats, matrix: Floats) -> Floats:
    """``rows @ matrix`` for the factors of genes or cells and a small matrix, n_rows x columns of the matrix."""
    return np.einsum("gi,ij->gj", rows, matrix)
