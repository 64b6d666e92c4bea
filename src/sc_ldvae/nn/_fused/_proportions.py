"""Expression proportions of cells, row by row: nothing of size cells x genes beside the result."""

from __future__ import annotations

import numpy as np
from numba import prange

from sc_ldvae.nn._fused._jit import parallel_kernel
from sc_ldvae.nn._fused._rows_of_counts import softmax
from sc_ldvae.nn._fused._sums import linear_map


@parallel_kernel
def add_proportions(n_parts, u, decoder, genes, places, weights, out):
    """Add each cell's proportions of some genes, times its weight, to its row of `out`.

    Parameters
    ----------
    n_parts
        Shares of the cells.
    u, decoder
        Inputs, cells x inputs, and linear map, inputs x genes, to the log proportions.
    genes, places
        The wanted genes, and their columns in `out`.
    weights
        What the proportions of each cell are multiplied by.
    out
        Cells x columns; changed.
    """
    n_cells, n_genes = len(u), decoder.shape[1]
    for part in prange(n_parts):
        inputs, none = np.arange(u.shape[1]), np.empty(0, np.int64)
        eta, proportions = np.empty(n_genes, u.dtype), np.empty(n_genes, u.dtype)
        for cell in range(part * n_cells // n_parts, (part + 1) * n_cells // n_parts):
            linear_map(eta, decoder, inputs, u[cell])
            softmax(eta, none, proportions, eta)
            row, weight = out[cell], weights[cell]
            for j in range(len(genes)):
                row[places[j]] += weight * proportions[genes[j]]
