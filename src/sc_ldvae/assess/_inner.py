"""Sums over genes whose last bits depend on no number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats


def inner(one: Floats, other: Floats) -> Floats:
    """``one.T @ other``, n_one x n_other, for two matrices of genes x factors.

    BLAS splits long sums among as many threads as it has.
    """
    return np.einsum("gi,gj->ij", one, other)


def product(loadings: Floats, matrix: Floats) -> Floats:
    """``loadings @ matrix``, genes x factors."""
    return np.einsum("gi,ij->gj", loadings, matrix)
