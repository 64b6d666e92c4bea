"""Correlation of genes over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._products import inner, product
from sc_ldvae.decode._expression import CHUNK

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.decode._log_proportions import LogProportions


def correlation(cells: LogProportions, genes: Positions) -> Floats:
    """Pearson correlation of the genes' log proportions over cells and their posteriors, genes x genes.

    A log proportion is linear in the inputs and the log normaliser, so their small covariance matrix is all it takes.
    """
    inputs = np.column_stack([cells.u, cells.log_sums]).astype(np.float64)
    centred = inputs - inputs.mean(axis=0)
    covariance = inner(centred, centred) / len(centred) + _within_cells(cells)
    slopes = np.column_stack([cells.decoder.T[genes], np.full(len(genes), -1.0)]).astype(np.float64)
    of_genes = product(product(slopes, covariance), slopes.T)
    sd = np.sqrt(np.diag(of_genes))
    correlated = np.clip(of_genes / np.outer(sd, sd), -1, 1)
    np.fill_diagonal(correlated, 1)
    return correlated


def _within_cells(cells: LogProportions) -> Floats:
    """Mean posterior covariance of inputs and log normaliser."""
    n_inputs, n_latent = cells.u.shape[1] + 1, cells.scale.shape[1]
    total = np.zeros((n_inputs, n_inputs))
    for start in range(0, len(cells.u), CHUNK):
        chunk = slice(start, start + CHUNK)
        scale, latent = cells.scale[chunk].astype(np.float64), cells.u[chunk, :n_latent].astype(np.float64)
        # What one posterior standard deviation of each factor (second axis) does to inputs and log normaliser.
        moves = np.zeros((*scale.shape, n_inputs))
        moves[:, :, :n_latent] = np.eye(n_latent) - cells.competing * latent[:, None]
        moves[:, :, -1] = cells.centres[chunk]
        moves = (moves * scale[..., None]).reshape(-1, n_inputs)
        total += inner(moves, moves)
    return total / len(cells.u)
