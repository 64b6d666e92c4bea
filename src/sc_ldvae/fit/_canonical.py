"""From a trained module to canonical factors: folded, centred, ordered by explained deviance, signed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae import assess
from sc_ldvae.counts import View, evenly
from sc_ldvae.engine import scorer_of
from sc_ldvae.fit._fold import folded, level_blocks
from sc_ldvae.fit._scores import mean_elbo, posterior
from sc_ldvae.fit._unfold import unfolded
from sc_ldvae.nn import undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae._options import Levels, ModelOptions
    from sc_ldvae._typing import Floats, Mask, Positions
    from sc_ldvae.counts import Cells
    from sc_ldvae.nn import LDVAE, Model
    from sc_ldvae.record import Decoder, Folded, State

DRAWS = 10
# Evenly spaced held-out cells say what the ELBO is, and training cells how certain loadings are.
_CELLS_FOR_ELBO, _CELLS_FOR_ERRORS = 20_000, 20_000


@dataclass(frozen=True)
class OfView:
    """What a model says of one modality, and of the cells that have it."""

    folded: Folded
    places: Positions
    """Of the cells among all."""
    state: State
    loadings_covariance: Floats
    covariate_effects_se: Floats
    explained_deviance: Floats
    total_explained_deviance: float


@dataclass(frozen=True)
class Factors:
    """What is left of a model, and what it says of the cells of the fit."""

    of_views: tuple[OfView, ...]
    order: Positions
    """Position of each factor in the model."""
    state: State
    explained_deviance: Floats
    """Of all modalities together, as `total_explained_deviance`."""
    total_explained_deviance: float
    elbo_held_out: float | None


@undisturbed(torch.device("cpu"))
def canonical(
    model: Model, cells: Cells, held_out: Mask, options: ModelOptions, levels: Levels, *, shrunken: bool = False
) -> Factors:
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
    shrunken
        Whether its covariate effects had the adaptive prior.
    """
    arrays, everyone = folded(model, options, levels), np.arange(cells.n_obs)
    module, views = unfolded(arrays), cells.views(model.widths)
    explained = [
        _explained(module, cells, view, place, arrays[place].decoder, held_out) for place, view in enumerate(views)
    ]
    total, shares, _ = assess.together(explained, [len(view.places) / cells.n_obs for view in views])
    order, signs = _canonical_order(
        shares,
        [one.decoder for one in arrays],
        [one.null * one.shares for one in explained],
        composition=options.composition,
    )
    arrays = [one.reordered(order, signs) for one in arrays]

    # Once more, for what stands in the AnnData is to be, bit for bit, what its encoders give.
    stored, others = unfolded(arrays), evenly(np.flatnonzero(held_out), _CELLS_FOR_ELBO)
    elbo_held_out = None
    with scorer_of(stored) as scorer:
        state = posterior(stored, scorer, cells, everyone)
        if len(others):
            elbo_held_out = mean_elbo(scorer, cells.kept(others), np.arange(len(others)), DRAWS)
    of_views = []
    for place, view in enumerate(views):
        training = np.flatnonzero(~held_out[view.places])
        some, own = evenly(training, _CELLS_FOR_ERRORS), state.of_view(view.places, place)
        known = as_decoded(stored.views[place], view.cells.subset(some), own.rows(some))
        errors = _errors(
            arrays[place].decoder,
            known,
            level_blocks(model.views[place]),
            composition=options.composition,
            shrunken=shrunken,
            n_training=len(training),
        )
        one = explained[place]
        of_views.append(OfView(arrays[place], view.places, own, *errors, one.shares[order], one.total))
    return Factors(tuple(of_views), order, state, shares[order], total, elbo_held_out)


def decoded_cells(
    model: Model, cells: Cells, chosen: Positions, view: View | None = None, place: int = 0
) -> assess.Decoded:
    """The `chosen` cells at the posterior means of latent and library; of a `view`, by their positions there."""
    own = View(cells, np.arange(cells.n_obs)) if view is None else view
    with scorer_of(model) as scorer:
        state = posterior(model, scorer, cells, own.places[chosen])
    return as_decoded(model.views[place], own.cells.subset(chosen), state.of_view(np.arange(len(chosen)), place))


def _explained(
    model: Model, cells: Cells, view: View, place: int, decoder: Decoder, held_out: Mask
) -> assess.Explained:
    decoded = partial(decoded_cells, model, cells, view=view, place=place)
    return assess.deviance_on_held_out(decoder, view.cells.source, decoded, held_out[view.places])


def as_decoded(model: LDVAE, cells: Cells, state: State) -> assess.Decoded:
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


def _canonical_order(
    shares: Floats, decoders: Sequence[Decoder], by_view: Sequence[Floats], *, composition: bool
) -> tuple[Positions, NDArray[np.float64]]:
    """Largest explained deviance first, what vanished last; signs such that the loadings' heavier tail is positive.

    The loadings of each factor are those of the modality of which it explains most (`by_view`, n_latent each).
    """
    vanished = np.all([decoder.log_proportion.vanished for decoder in decoders], axis=0)
    order = np.lexsort((-shares, vanished))
    if composition:
        return order, np.ones(len(order))
    skewness = np.stack([(decoder.log_proportion.loadings[:, order] ** 3).sum(0) for decoder in decoders])
    strongest = np.argmax(by_view, axis=0)[order]
    return order, np.where(skewness[strongest, np.arange(len(order))] < 0, -1.0, 1.0)


def _errors(
    decoder: Decoder,
    decoded: assess.Decoded,
    levels: list[slice],
    *,
    composition: bool,
    shrunken: bool,
    n_training: int,
) -> assess.Errors:
    """Of each gene; of the loadings of vanished factors zero, as they themselves."""
    kept = np.flatnonzero(~decoder.log_proportion.vanished)
    n_genes, n_latent = decoder.log_proportion.loadings.shape
    found = assess.errors(
        decoder, decoded, kept, levels, composition=composition, shrunken=shrunken, n_training=n_training
    )
    covariance = np.zeros((n_genes, n_latent, n_latent))
    covariance[:, kept[:, None], kept] = found.loadings
    return found._replace(loadings=covariance)
