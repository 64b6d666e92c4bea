"""From the linear maps to the likelihood of counts and back, in one pass over a minibatch of cells x genes."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._add_rows import add_rows
from sc_ldvae.kernels._link import express, through_link
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._row_loss import N_SCRATCH, TILE, row_loss
from sc_ldvae.kernels._sums import add_products, add_scaled, linear_map, positions, scale

# Genes whose maps, and a tile's outputs, the nearest cache holds at once.
_AT_ONCE = 512


# Every array is an argument, for a kernel that takes apart a structure of them loses what it knows of their layout.
@parallel_kernel
def count_loss(
    which,
    n_slices,
    indptr,
    genes,
    counts,
    log_library,
    u,
    u_transposed,
    maps,
    group,
    terms,
    factor,
    log_likelihood,
    d_u_transposed,
    d_log_library,
    d_maps,
    d_grouped,
):
    """Log-likelihood per cell, without the factorials of the counts, and the gradient of `factor` times their sum.

    Parameters
    ----------
    n_slices
        Slices of the cells; each writes gradients of its own.
    indptr, genes, counts
        Counts in compressed rows.
    log_library
        Log library, n_cells.
    u, u_transposed
        Inputs of the linear maps, the last one being 1, cells x inputs and inputs x cells.
    maps
        Linear maps, maps x inputs x genes: to the log proportions (or log expression: `without_softmax`), and to the
        parts of the likelihood that are such.
    group
        Group of each cell, for parts that have one value per group.
    terms
        What else the likelihood needs; its type says which likelihood it is (`row_loss`).
    factor
        What gradients are multiplied by.
    log_likelihood, d_log_library
        Filled.
    d_u_transposed
        Added to, inputs x cells.
    d_maps, d_grouped
        Filled: slices x the shape of `maps`, and slices x (parts of the likelihood with one value per group) x groups x
        genes.

    Notes
    -----
    With outputs ``y_m = u @ maps[m]`` and the gradients ``d_m`` by them, which `row_loss` gives, the gradient by u is
    ``sum_m maps[m] @ d_m`` and that by ``maps[m]`` is the sum of ``outer(u, d_m)`` over cells.
    """
    (n_maps, n_inputs, n_genes), n_cells, n_grouped = maps.shape, len(u), d_grouped.shape[1]
    inputs, in_tile = positions(n_inputs), positions(TILE)
    # Indexed, not unpacked: numba forgets that what it unpacks is contiguous.
    rows = np.empty((2, n_genes), u.dtype)
    proportions, log_proportions = rows[0], rows[1]
    scratch, outputs = np.empty((N_SCRATCH, n_genes), u.dtype), np.empty((TILE * n_maps, n_genes), u.dtype)
    gradients = np.empty(((n_maps + n_grouped) * TILE, n_genes), u.dtype)
    d_maps[which] = 0
    d_grouped[which] = 0
    first, last = which * n_cells // n_slices, (which + 1) * n_cells // n_slices
    for start in range(first, last, TILE):
        tile = in_tile[: min(TILE, last - start)]
        for begin in range(0, n_genes, _AT_ONCE):
            own = slice(begin, min(begin + _AT_ONCE, n_genes))
            for m in range(n_maps):
                for i in tile:
                    linear_map(outputs[i * n_maps + m, own], maps[m, :, own], inputs, u[start + i])
        for i in tile:
            cell = start + i
            x_genes, x = genes[indptr[cell] : indptr[cell + 1]], counts[indptr[cell] : indptr[cell + 1]]
            of_cell = outputs[i * n_maps : (i + 1) * n_maps]
            express(terms, of_cell[0], x_genes, proportions, log_proportions)
            log_likelihood[cell] = row_loss(
                terms,
                group[cell],
                log_library[cell],
                proportions,
                log_proportions,
                x_genes,
                x,
                of_cell,
                scratch,
                gradients,
                i,
            )
            d_log_library[cell] = through_link(terms, gradients[i], proportions, factor)
            for m in range(1, n_maps):
                scale(gradients[m * TILE + i], factor)
            for j in range(n_grouped):
                add_scaled(d_grouped[which, j, group[cell]], gradients[(n_maps + j) * TILE + i], factor)
        for begin in range(0, n_genes, _AT_ONCE):
            own = slice(begin, min(begin + _AT_ONCE, n_genes))
            for m in range(n_maps):
                by_output = gradients[m * TILE : m * TILE + len(tile)]
                for k in inputs:
                    cells = slice(start, start + len(tile))
                    add_rows(d_maps[which, m, k, own], by_output[:, own], tile, u_transposed[k, cells])
                    add_products(d_u_transposed[k, cells], by_output, own, maps[m, k, own])
