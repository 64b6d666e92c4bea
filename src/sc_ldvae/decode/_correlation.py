"""Correlation of genes over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._products import inner, product
from sc_ldvae.decode._expression import CHUNK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.decode._log_proportions import LogProportions


def correlation(views: Sequence[LogProportions], genes: Sequence[Positions]) -> Floats:
    """Pearson correlation of the log proportions of some genes over cells and their posteriors, genes x genes.

    A log proportion is linear in the inputs and the log normaliser of its modality, so their small covariance matrix is
    all it takes. `views` are of the same cells, one for each modality, and `genes` are the positions of those that are
    asked for in each.
    """
    first = views[0]
    inputs = np.column_stack([first.u, *(view.log_sums for view in views)]).astype(np.float64)
    centred = inputs - inputs.mean(axis=0)
    covariance = inner(centred, centred) / len(centred) + _within_cells(views)
    n_inputs = first.u.shape[1]
    slopes = np.zeros((sum(map(len, genes)), inputs.shape[1]))
    slopes[:, :n_inputs] = np.concatenate([view.decoder.T[own] for view, own in zip(views, genes, strict=True)])
    slopes[np.arange(len(slopes)), n_inputs + np.repeat(np.arange(len(genes)), [len(own) for own in genes])] = -1
    of_genes = product(product(slopes, covariance), slopes.T)
    sd = np.sqrt(np.diag(of_genes))
    correlated = np.clip(of_genes / np.outer(sd, sd), -1, 1)
    np.fill_diagonal(correlated, 1)
    return correlated


def _within_cells(views: Sequence[LogProportions]) -> Floats:
    """Mean posterior covariance of inputs and log normalisers."""
    first = views[0]
    n_inputs, n_latent = first.u.shape[1], first.scale.shape[1]
    n_all = n_inputs + len(views)
    total = np.zeros((n_all, n_all))
    for start in range(0, len(first.u), CHUNK):
        chunk = slice(start, start + CHUNK)
        scale, latent = first.scale[chunk].astype(np.float64), first.u[chunk, :n_latent].astype(np.float64)
        # What one posterior standard deviation of each factor (second axis) does to inputs and log normalisers.
        moves = np.zeros((*scale.shape, n_all))
        moves[:, :, :n_latent] = np.eye(n_latent) - first.competing * latent[:, None]
        for i, view in enumerate(views):
            moves[:, :, n_inputs + i] = view.centres[chunk]
        moves = (moves * scale[..., None]).reshape(-1, n_all)
        total += inner(moves, moves)
    return total / len(first.u)
