"""Explained deviance: how much of the counts' variation a fit, and each of its factors, accounts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_ldvae.counts import evenly, gene_totals
from sc_ldvae.likelihoods import Contrasts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Mask, Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.counts import Source
    from sc_ldvae.likelihoods import Likelihood
    from sc_ldvae.record import Decoder

_CHUNK = 256
# As many evenly spaced cells say what is needed.
_CELLS_FOR_DEVIANCE, _CELLS_FOR_MEAN, _CELLS_FOR_NULL = 2000, 20_000, 50_000


def null_proportions(likelihood: Likelihood, source: Source, cells: Positions) -> Floats:
    """Proportion of each gene where all of some cells have the same, n_vars, or without a library its mean count.

    Half a count extra, so that none is zero. Of many cells, those of evenly spaced ones.
    """
    some = evenly(cells, _CELLS_FOR_NULL)
    return likelihood.proportions(gene_totals(source, some, thresholded=likelihood.thresholded), len(some))


class Explained(NamedTuple):
    """Explained deviance."""

    total: float
    """``1 - deviance(fit) / deviance(null)``."""
    shares: Floats
    """Of each factor, n_latent."""
    null: float
    """Deviance of the null per cell."""


def together(of_modalities: Sequence[Explained], shares_of_cells: Sequence[float]) -> Explained:
    """What is explained of the deviance of several modalities, of which each share of the cells has one."""
    if len(of_modalities) == 1:
        return of_modalities[0]
    nulls = np.array([one.null * share for one, share in zip(of_modalities, shares_of_cells, strict=True)])
    weights = nulls / max(nulls.sum(), np.finfo(float).tiny)
    total = float(weights @ [one.total for one in of_modalities])
    return Explained(total, weights @ np.array([one.shares for one in of_modalities]), float(nulls.sum()))


def deviance_on_held_out(
    decoder: Decoder, source: Source, decoded: Callable[[Positions], Decoded], held_out: Mask
) -> Explained:
    """Total and each factor's share of the explained deviance on some of the held-out cells.

    Where no cell or every cell is held out, that of all cells, beside the null of all cells. `decoded` gives cells by
    their positions.
    """
    every = np.ones_like(held_out)
    scored, others = (held_out, ~held_out) if 0 < held_out.sum() < len(held_out) else (every, every)
    return explained_deviance(
        decoder,
        decoded(evenly(np.flatnonzero(scored), _CELLS_FOR_DEVIANCE)),
        null_proportions(decoder.likelihood, source, np.flatnonzero(others)),
        latent_mean=decoded(evenly(np.arange(len(held_out)), _CELLS_FOR_MEAN)).latent.mean(0),
    )


def explained_deviance(decoder: Decoder, cells: Decoded, null: Floats, latent_mean: Floats) -> Explained:
    """Share of the null's deviance that the fit, and each factor on top of the others, explains.

    The deviance is that of the expected counts under the fitted dispersion (if there is one). The null gives every cell
    its library times the proportions `null`, or without a library these means. A factor's share is the deviance that
    returns when it is set to its mean.
    """
    n_latent = cells.latent.shape[1]
    without = np.vstack([np.zeros(n_latent, dtype=bool), np.eye(n_latent, dtype=bool)])
    sums = np.zeros(1 + len(without))
    for chunk in deviances_without(decoder, cells, without, null, latent_mean):
        sums += chunk.sum(0)
    of_null, of_fit, others = sums[0], sums[1], sums[2:]
    if of_null == 0:
        # Cells without any variation have none to explain.
        return Explained(0.0, np.zeros(n_latent), 0.0)
    return Explained(float(1 - of_fit / of_null), (others - of_fit) / of_null, float(of_null / len(cells.latent)))


def deviances_without(
    decoder: Decoder, cells: Decoded, without: Mask, null: Floats, latent_mean: Floats
) -> Iterator[Floats]:
    """Deviance of each cell under the null, and under the decoder without each set of factors, some cells at a time.

    Parameters
    ----------
    decoder, cells
        Of the same frame.
    without
        Factors that are set to their mean, n_sets x n_latent.
    null, latent_mean
        Proportions under the null, n_genes (without a library means), and mean of the latent, n_latent.

    Yields
    ------
    Cells x (1 + n_sets).
    """
    for counts, chunk in cells.chunks(_CHUNK):
        yield _chunk_deviances(decoder, counts, chunk, without, null, latent_mean)


def _chunk_deviances(
    decoder: Decoder, counts: csr_matrix, cells: Decoded, without: Mask, null: Floats, latent_mean: Floats
) -> Floats:
    centred, loadings = cells.latent - latent_mean, decoder.log_proportion.loadings.T
    contrasts = Contrasts(cells.library, np.log(null), cells.eta(decoder), centred, loadings, without)
    return decoder.likelihood.deviances(counts, contrasts, cells.linear(decoder))
