"""Expression proportions of cells, row by row: nothing of size cells x genes beside the result."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import exp
from sc_ldvae.kernels._maximum import maximum
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import add_scaled, linear_map, positions


@parallel_kernel
def add_proportions(which, n_slices, u, decoder, n_competing, genes, places, weights, out):
    """Add the mean of each cell's proportions of some genes over draws, times the cell's weight, to its row of `out`.

    Parameters
    ----------
    n_slices
        Slices of the cells.
    u, decoder
        Inputs, draws x cells x inputs, and linear map, inputs x genes, to the log proportions.
    n_competing
        Proportions are a softmax over so many genes, the first, and those of others are of the same sum; if 0, their
        log is the output itself.
    genes, places
        The wanted genes, and their columns in `out`; both None for all genes in their order.
    weights
        What the mean proportions of each cell are multiplied by.
    out
        Cells x columns; changed.
    """
    (n_draws, n_cells, n_inputs), n_genes = u.shape, decoder.shape[1]
    inputs, eta, total = positions(n_inputs), np.empty(n_genes, u.dtype), np.empty(n_genes, u.dtype)
    for cell in range(which * n_cells // n_slices, (which + 1) * n_cells // n_slices):
        total[:] = 0
        for draw in range(n_draws):
            linear_map(eta, decoder, inputs, u[draw, cell])
            largest, normaliser = u.dtype.type(0), u.dtype.type(0)
            if n_competing:
                largest = maximum(eta[:n_competing])
            for g in range(n_competing):
                eta[g] = exp(eta[g] - largest)
                normaliser += eta[g]
            for g in range(n_competing, n_genes):
                eta[g] = exp(eta[g] - largest)
            if not n_competing:
                normaliser = u.dtype.type(1)
            add_scaled(total, eta, weights[cell] / (normaliser * u.dtype.type(n_draws)))
        row = out[cell]
        if genes is None:
            for g in range(n_genes):
                row[g] += total[g]
        else:
            for j in range(len(genes)):
                row[places[j]] += total[genes[j]]
