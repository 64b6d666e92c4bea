"""Explained deviance: how much of the counts' variation a fit, and each of its factors, accounts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_ldvae.assess._nested import in_order, nested, taken_away
from sc_ldvae.counts import evenly, gene_totals
from sc_ldvae.likelihoods import Contrasts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sc_ldvae._typing import Bar, Floats, Mask, Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.counts import Source
    from sc_ldvae.likelihoods import Likelihood
    from sc_ldvae.record import Decoder

_CHUNK = 256
# As many evenly spaced cells say what is needed.
_CELLS_FOR_DEVIANCE, _CELLS_FOR_NULL = 2000, 50_000


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
        decoded(cells_for_deviance(np.flatnonzero(scored))),
        null_proportions(decoder.likelihood, source, np.flatnonzero(others)),
    )


def cells_for_deviance(cells: Positions) -> Positions:
    """As many of the cells as say what is needed, evenly spaced."""
    return evenly(cells, _CELLS_FOR_DEVIANCE)


def explained_deviance(decoder: Decoder, cells: Decoded, null: Floats) -> Explained:
    """Share of the null's deviance that the fit, and each of its factors, explains.

    The deviance is that of the expected counts under the fitted dispersion (if there is one). The null gives every cell
    its library times the proportions `null`, or without a library these means. The shares of the factors add up to the
    total less what is explained without any factor, as covariates do.
    """
    n_latent, order = cells.latent.shape[1], in_order(decoder, cells)
    without = nested(order, n_latent)
    sums = np.zeros(1 + len(without))
    for chunk in deviances_without(decoder, cells, without, null):
        sums += chunk.sum(0)
    of_null, of_fit = sums[:2]
    if of_null == 0:
        # Cells without any variation have none to explain.
        return Explained(0.0, np.zeros(n_latent), 0.0)
    shares = taken_away(sums[1:], order, n_latent) / of_null
    return Explained(float(1 - of_fit / of_null), shares, float(of_null / len(cells.latent)))


def deviances_without(
    decoder: Decoder, cells: Decoded, without: Mask, null: Floats, bar: Bar | None = None
) -> Iterator[Floats]:
    """Deviance of each cell under the null, and under the decoder without each set of factors, some cells at a time.

    Factors are left out on the scale of the counts: they are set to their mean over the cells, and then the intercept
    of each gene is shifted, so that its expected total over the cells is that with all factors.

    Parameters
    ----------
    decoder, cells
        Of the same frame.
    without
        Factors that each set leaves out, n_sets x n_latent; of the first set none.
    null
        Proportions under the null, n_genes (without a library means).
    bar
        Told of all cells twice: when their expected counts are known, and their deviances.

    Yields
    ------
    Cells x (1 + n_sets).
    """
    latent_mean, n_genes = cells.latent.mean(0), len(null)

    def contrasts(chunk: Decoded, offsets: Floats) -> Contrasts:
        centred, loadings = chunk.latent - latent_mean, decoder.log_proportion.loadings.T
        return Contrasts(chunk.library, np.log(null), chunk.eta(decoder), centred, loadings, without, offsets)

    nothing, totals = np.zeros((len(without), n_genes)), np.zeros((len(without), n_genes))
    for chunk in cells.pieces(_CHUNK):
        totals += decoder.likelihood.expected_totals(contrasts(chunk, nothing), chunk.linear(decoder))
        if bar is not None:
            bar.update(len(chunk.latent))
    log_means = decoder.likelihood.log_mean(totals / len(cells.latent))
    offsets = log_means[0] - log_means
    for counts, chunk in cells.chunks(_CHUNK):
        yield decoder.likelihood.deviances(counts, contrasts(chunk, offsets), chunk.linear(decoder))
        if bar is not None:
            bar.update(len(chunk.latent))
