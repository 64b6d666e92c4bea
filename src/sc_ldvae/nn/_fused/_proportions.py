"""Expression proportions of cells, row by row: nothing of size cells x genes beside the result."""

from __future__ import annotations

import numpy as np
from numba import prange

from sc_ldvae.nn._fused._jit import exp, parallel_kernel
from sc_ldvae.nn._fused._sums import linear_map, maximum


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
        The wanted genes, and their columns in `out`; both None for all genes in their order.
    weights
        What the proportions of each cell are multiplied by.
    out
        Cells x columns; changed.
    """
    n_cells, n_genes = len(u), decoder.shape[1]
    for part in prange(n_parts):
        inputs, eta = np.arange(u.shape[1]), np.empty(n_genes, u.dtype)
        for cell in range(part * n_cells // n_parts, (part + 1) * n_cells // n_parts):
            linear_map(eta, decoder, inputs, u[cell])
            largest, total = maximum(eta), u.dtype.type(0)
            for g in range(n_genes):
                eta[g] = exp(eta[g] - largest)
                total += eta[g]
            row, share = out[cell], weights[cell] / total
            if genes is None:
                for g in range(n_genes):
                    row[g] += share * eta[g]
            else:
                for j in range(len(genes)):
                    row[places[j]] += share * eta[genes[j]]
