"""From the linear decoder to the likelihood of counts and back, in one pass over a minibatch of cells x genes."""

from __future__ import annotations

import numpy as np
from numba import prange

from sc_ldvae.nn._fused._jit import exp, parallel_kernel
from sc_ldvae.nn._fused._rows_of_counts import (
    add_counts,
    add_gammas,
    add_tabulated_gammas,
    deflate_nonzeros,
    inflate_zeros,
    of_zeros,
    poisson,
    softmax,
    through_softmax,
)
from sc_ldvae.nn._fused._sums import add_products, add_rows, add_scaled, exp_of, linear_map, scale

# Cells whose gradients are added to the weights' at once.
_TILE = 8


@parallel_kernel
def count_loss(
    n_parts,
    indptr,
    genes,
    counts,
    log_library,
    u,
    u_transposed,
    decoder,
    theta_decoder,
    inflation,
    theta_row,
    log_theta,
    theta,
    rising,
    slopes,
    factor,
    log_likelihood,
    d_u,
    d_log_library,
    d_decoder,
    d_theta_decoder,
    d_inflation,
    d_log_theta,
):
    """Log-likelihood per cell, without the factorials of the counts, and the gradient of `factor` times their sum.

    Parameters
    ----------
    n_parts
        Shares of the cells; each writes gradients of its own.
    indptr, genes, counts
        Counts in compressed rows.
    log_library
        Log library, n_cells.
    u, u_transposed
        Inputs of the linear maps, the last one being 1, cells x inputs and inputs x cells.
    decoder, theta_decoder, inflation
        Linear maps, inputs x genes, to the log proportions, to log theta where it is one (else None), and to the log
        odds of an extra zero (None without).
    theta_row, log_theta, theta, rising, slopes
        Row of each cell in log theta and theta, rows x genes, and their tables (`tabulate_rising`). None where log
        theta is a linear map, and for Poisson.
    factor
        What gradients are multiplied by.
    log_likelihood, d_u, d_log_library
        Filled.
    d_decoder, d_theta_decoder, d_inflation, d_log_theta
        Filled, parts x the shape of what they are gradients of.
    """
    n_cells, n_genes, n_inputs = len(u), decoder.shape[1], u.shape[1]
    for part in prange(n_parts):
        inputs, in_tile, everything = np.arange(n_inputs), np.arange(_TILE), np.arange(n_genes)
        rest = np.empty(n_genes, np.int64)
        # Indexed, not unpacked: numba forgets that what it unpacks is contiguous.
        rows = np.empty((8, n_genes), u.dtype)
        proportions, log_proportions, log_growth, share, logits = rows[0], rows[1], rows[2], rows[3], rows[4]
        own_log_theta, own_theta, not_inflated = rows[5], rows[6], rows[7]
        tiles = np.empty((3, _TILE, n_genes), u.dtype)
        d_mean, d_theta, d_logits = tiles[0], tiles[1], tiles[2]
        d_decoder[part] = 0
        if theta_decoder is not None:
            d_theta_decoder[part] = 0
        if log_theta is not None:
            d_log_theta[part] = 0
        if inflation is not None:
            d_inflation[part] = 0

        first, last = part * n_cells // n_parts, (part + 1) * n_cells // n_parts
        for start in range(first, last, _TILE):
            tile = in_tile[: min(_TILE, last - start)]
            for i in tile:
                cell = start + i
                row = theta_row[cell]
                x_genes, x = genes[indptr[cell] : indptr[cell + 1]], counts[indptr[cell] : indptr[cell + 1]]
                of_mean, of_theta, of_logits = d_mean[i], d_theta[i], d_logits[i]
                # The decoder's output, until the gradient takes its place.
                linear_map(of_mean, decoder, inputs, u[cell])
                softmax(of_mean, x_genes, proportions, log_proportions)

                if theta_decoder is None and log_theta is None:
                    value = poisson(log_library[cell], proportions, log_proportions, x_genes, x, of_mean)
                else:
                    if theta_decoder is not None:
                        linear_map(own_log_theta, theta_decoder, inputs, u[cell])
                        exp_of(own_theta, own_log_theta)
                    if log_theta is not None:
                        own_log_theta, own_theta = log_theta[row], theta[row]
                    library = exp(log_library[cell])
                    value = of_zeros(library, proportions, own_theta, log_growth, share, of_mean, of_theta)
                    if inflation is not None:
                        linear_map(logits, inflation, inputs, u[cell])
                        value += inflate_zeros(
                            logits, own_theta, log_growth, not_inflated, of_mean, of_theta, of_logits
                        )
                        value += deflate_nonzeros(
                            x_genes, logits, own_theta, log_growth, share, not_inflated, of_mean, of_theta, of_logits
                        )
                    value += add_counts(
                        log_library[cell],
                        log_proportions,
                        x_genes,
                        x,
                        own_theta,
                        own_log_theta,
                        log_growth,
                        share,
                        of_mean,
                        of_theta,
                    )
                    if rising is not None:
                        tabulated, n_rest = add_tabulated_gammas(x_genes, x, rising[row], slopes[row], of_theta, rest)
                        value += tabulated + add_gammas(x_genes, x, rest[:n_rest], own_theta, of_theta)
                    else:
                        value += add_gammas(x_genes, x, everything[: len(x)], own_theta, of_theta)
                log_likelihood[cell] = value
                d_log_library[cell] = through_softmax(of_mean, proportions, factor)
                d_u[cell] = 0
                add_products(d_u[cell], decoder, of_mean)
                if theta_decoder is not None:
                    scale(of_theta, factor)
                    add_products(d_u[cell], theta_decoder, of_theta)
                if log_theta is not None:
                    add_scaled(d_log_theta[part, row], of_theta, factor)
                if inflation is not None:
                    scale(of_logits, factor)
                    add_products(d_u[cell], inflation, of_logits)
            for k in inputs:
                weights = u_transposed[k, start : start + len(tile)]
                add_rows(d_decoder[part, k], d_mean, tile, weights)
                if theta_decoder is not None:
                    add_rows(d_theta_decoder[part, k], d_theta, tile, weights)
                if inflation is not None:
                    add_rows(d_inflation[part, k], d_logits, tile, weights)
