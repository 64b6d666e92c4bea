"""From a trained module to canonical factors: folded, centred, ordered by explained deviance, signed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae import assess
from sc_ldvae.counts import evenly
from sc_ldvae.engine import scorer_of
from sc_ldvae.fit._fold import folded, level_blocks
from sc_ldvae.fit._scores import mean_elbo, posterior
from sc_ldvae.fit._unfold import unfolded
from sc_ldvae.nn import undisturbed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._options import Levels, ModelOptions
    from sc_ldvae._typing import Floats, Mask, Positions
    from sc_ldvae.counts import Cells
    from sc_ldvae.nn import LDVAE
    from sc_ldvae.record import Decoder, Folded, State

DRAWS = 10
# Evenly spaced held-out cells say what the ELBO is, and training cells how certain loadings are.
_CELLS_FOR_ELBO, _CELLS_FOR_ERRORS = 20_000, 50_000


@dataclass(frozen=True)
class Factors:
    """What is left of a model, and what it says of the cells of the fit."""

    folded: Folded
    order: Positions
    """Position of each factor in the model."""
    state: State
    loadings_covariance: Floats
    explained_deviance: Floats
    total_explained_deviance: float
    elbo_held_out: float | None


@undisturbed(torch.device("cpu"))
def canonical(model: LDVAE, cells: Cells, held_out: Mask, options: ModelOptions, levels: Levels) -> Factors:
    """Canonical factors of a trained model, on the CPU.

    Parameters
    ----------
    model
        In evaluation mode, on any device.
    cells
        All cells of the fit.
    held_out
        Cells that were not trained on, n_obs.
    options, levels
        Of which the model was built.
    """
    arrays, everyone = folded(model, options, levels), np.arange(cells.n_obs)
    decoded = partial(decoded_cells, unfolded(arrays), cells)
    total, shares = assess.deviance_on_held_out(arrays.decoder, cells.source, decoded, held_out)
    order, signs = _canonical_order(shares, arrays.decoder, composition=options.composition)
    arrays = arrays.reordered(order, signs)

    # Once more, for what stands in the AnnData is to be, bit for bit, what its encoders give.
    stored, others = unfolded(arrays), evenly(np.flatnonzero(held_out), _CELLS_FOR_ELBO)
    elbo_held_out = None
    with scorer_of(stored) as scorer:
        state = posterior(stored, scorer, cells, everyone)
        if len(others):
            elbo_held_out = mean_elbo(scorer, cells.kept(others), np.arange(len(others)), DRAWS)
    training = np.flatnonzero(~held_out)
    some = evenly(training, _CELLS_FOR_ERRORS)
    known = _decoded(stored, cells.subset(some), state.rows(some))
    covariance = _covariance(
        arrays.decoder, known, level_blocks(model), composition=options.composition, n_training=len(training)
    )
    return Factors(arrays, order, state, covariance, shares[order], total, elbo_held_out)


def decoded_cells(model: LDVAE, cells: Cells, chosen: Positions) -> assess.Decoded:
    """The `chosen` cells at the posterior means of latent and library."""
    with scorer_of(model) as scorer:
        return _decoded(model, cells.subset(chosen), posterior(model, scorer, cells, chosen))


def _decoded(model: LDVAE, cells: Cells, state: State) -> assess.Decoded:
    """Cells at the posterior means that stand in `state`."""
    annotations = {name: torch.from_numpy(values) for name, values in cells.annotations.items()}
    covariates = model.covariates(*map(annotations.get, ("batch_index", "cat_covs", "cont_covs")))
    group = model.theta_group(annotations.get("batch_index"), annotations.get("labels"))
    return assess.Decoded(
        cells.source,
        state.latent.astype(np.float64),
        np.zeros((cells.n_obs, 0)) if covariates is None else covariates.double().numpy(),
        state.library.astype(np.float64),
        np.zeros(cells.n_obs, dtype=np.int64) if group is None else group.numpy(),
    )


def _canonical_order(shares: Floats, decoder: Decoder, *, composition: bool) -> tuple[Positions, NDArray[np.float64]]:
    """Largest explained deviance first, what vanished last; signs such that the loadings' heavier tail is positive."""
    order = np.lexsort((-shares, decoder.log_proportion.vanished))
    if composition:
        return order, np.ones(len(order))
    skewness = (decoder.log_proportion.loadings[:, order] ** 3).sum(0)
    return order, np.where(skewness < 0, -1.0, 1.0)


def _covariance(
    decoder: Decoder, decoded: assess.Decoded, levels: list[slice], *, composition: bool, n_training: int
) -> NDArray[np.float64]:
    """Of the loadings of each gene; of those of vanished factors zero, as they themselves."""
    kept = np.flatnonzero(~decoder.log_proportion.vanished)
    n_genes, n_latent = decoder.log_proportion.loadings.shape
    covariance = np.zeros((n_genes, n_latent, n_latent))
    covariance[:, kept[:, None], kept] = assess.loadings_covariance(
        decoder, decoded, kept, levels, composition=composition, n_training=n_training
    )
    return covariance
