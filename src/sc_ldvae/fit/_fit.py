"""One fit from counts to canonical factors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.counts import evenly
from sc_ldvae.engine import AdaptivePrior, AdaptivePriors, Ranks, engine_of, own_device, ranks_of
from sc_ldvae.fit._build import built
from sc_ldvae.fit._canonical import canonical
from sc_ldvae.fit._checkpoint import Checkpoint, check_same, fingerprint_of, fingerprint_of_draws
from sc_ldvae.fit._course import Course
from sc_ldvae.fit._fold import level_blocks
from sc_ldvae.fit._schedule import rounds_of
from sc_ldvae.fit._start import MAX_CELLS, start_from_data
from sc_ldvae.fit._vanish import with_vanished, without_vanished
from sc_ldvae.fit._verdict import check_result
from sc_ldvae.fit._watcher import Nobody
from sc_ldvae.likelihoods import LIKELIHOODS, Mode, compiled_together
from sc_ldvae.nn import undisturbed
from sc_ldvae.record import JointFit, NewFit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.fit._canonical import Factors
    from sc_ldvae.fit._history import History
    from sc_ldvae.fit._request import Request
    from sc_ldvae.fit._watcher import Watcher
    from sc_ldvae.nn import Model

_STEP_BACK = 10
_log = logging.getLogger("sc_ldvae")


@dataclass(frozen=True)
class Training:
    """A trained model in evaluation mode, and how the training went."""

    model: Model
    history: History
    stop_reason: str
    prior_scales: list[Floats] | None = None
    """Standard deviation of the prior of each factor's loadings in each modality, 0 where it vanished, n_latent."""
    shrunken: bool = False
    """Whether covariate effects had such a prior to the end."""


def fit(
    request: Request,
    held_out: Mask,
    rng: np.random.Generator,
    watcher: Watcher | None = None,
    checkpoint: Path | None = None,
    *,
    resume: bool = False,
) -> JointFit:
    """Train the model on all cells but the `held_out` ones (n_obs), and bring its factors into canonical form.

    The state of the training is written to `checkpoint`; with `resume` it goes on from the one that is there.
    """
    device, watcher = own_device(request.device), watcher or Nobody()
    with ranks_of(device) as ranks, compiled_together(_modes(request), watcher.waits):
        request, kept = replace(request, device=device), None
        if ranks.n > 1:
            check_same(fingerprint_of(request, ranks.n), ranks)
            # Each process may have drawn its own.
            held_out, rng = ranks.shared(lambda: (held_out, rng))
        if checkpoint is not None:
            known = fingerprint_of(request, ranks.n) | fingerprint_of_draws(held_out, rng)
            kept = ranks.shared(lambda: Checkpoint(checkpoint, known, resume=resume))
        training = trained(request, held_out, rng, watcher, kept, ranks)
        return ranks.shared(lambda: _finished(request, held_out, training))


def _modes(request: Request) -> list[Mode]:
    """What kernels are compiled for, one for each modality."""
    options, blocks = request.options, request.blocks
    own = [options.of_modality(block.gene_likelihood, block.dispersion) for block in blocks] or [options]
    return [Mode(one.gene_likelihood, one.dispersion == "gene-cell") for one in own]


def _finished(request: Request, held_out: Mask, training: Training) -> JointFit:
    """What a training comes to: canonical factors, and what they say of the cells."""
    # What overflows here is refused below.
    with np.errstate(all="ignore"):
        factors = canonical(
            training.model, request.cells, held_out, request.options, request.levels, shrunken=training.shrunken
        )
    _check_finite(factors)
    history = training.history
    new = new_fit(factors, held_out, history.columns(), history.epoch[history.best()], training.stop_reason)
    if training.prior_scales is None:
        return new
    n_vanished = int((training.prior_scales[0] == 0).sum())
    _log.info("%d of %d factors were not needed.", n_vanished, request.options.n_latent)
    scales = [scale[factors.order] for scale in training.prior_scales]
    of_views = [replace(one, prior_scale=scale) for one, scale in zip(new.of_views, scales, strict=True)]
    return replace(new, of_views=tuple(of_views))


def new_fit(
    factors: Factors, held_out: Mask, history: Mapping[str, Sequence[float]], best_epoch: float, stop_reason: str
) -> JointFit:
    """Factors and the course of their training, for the record."""
    of_views = [
        NewFit(
            folded=own.folded,
            latent=own.state.latent,
            variance=own.state.variance,
            library=own.state.library,
            held_out=held_out[own.places],
            loadings_covariance=own.loadings_covariance,
            covariate_effects_se=own.covariate_effects_se,
            explained_deviance=own.explained_deviance,
            total_explained_deviance=own.total_explained_deviance,
            elbo_held_out=factors.elbo_held_out,
            history=history,
            best_epoch=best_epoch,
            stop_reason=stop_reason,
        )
        for own in factors.of_views
    ]
    return JointFit(
        of_views=tuple(of_views),
        latent=factors.state.latent,
        variance=factors.state.variance,
        library=factors.state.library,
        held_out=held_out,
        explained_deviance=factors.explained_deviance,
        total_explained_deviance=factors.total_explained_deviance,
    )


def _check_finite(factors: Factors) -> None:
    """Refuse what holds a number that no later step could use."""
    state, total, elbo = factors.state, factors.total_explained_deviance, factors.elbo_held_out
    values: list[Any] = [state.latent, state.variance, factors.explained_deviance, total, 0.0 if elbo is None else elbo]
    for own in factors.of_views:
        values += [own.state.library, own.loadings_covariance, own.covariate_effects_se, own.explained_deviance]
    if not all(np.isfinite(part).all() for part in values):
        msg = "The fit ended with values that are not finite. Try a smaller lr, or fit for longer."
        raise FloatingPointError(msg)


@undisturbed(torch.device("cpu"))
def trained(
    request: Request,
    held_out: Mask,
    rng: np.random.Generator,
    watcher: Watcher | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks | None = None,
) -> Training:
    """Train the model on all cells but the `held_out` ones, n_obs; `rng` is the source of everything random.

    What diverges is trained once more at a tenth of the learning rate.

    Raises
    ------
    FloatingPointError
        If that diverges, too.
    """
    lr, ranks = request.schedule.lr, ranks or Ranks()
    for attempt in (0, 1):
        asked = replace(request, schedule=replace(request.schedule, lr=lr / _STEP_BACK**attempt))
        seeds = _seed(rng), _seed(rng)
        if checkpoint is not None and checkpoint.attempt > attempt:
            # It was left in the second one.
            continue
        try:
            return _trained_at_once(asked, held_out, seeds, watcher, checkpoint, attempt, ranks)
        except FloatingPointError as error:
            if attempt:
                msg = (
                    f"{error} So did a fit with lr={lr:g} before. Try a smaller lr, another gene_likelihood or "
                    "dispersion, or remove cells whose totals are far from all others."
                )
                raise FloatingPointError(msg) from None
            _log.warning("%s Trained again with lr=%g instead of %g.", error, lr / _STEP_BACK, lr)
    raise AssertionError  # one of them returns or raises


def _trained_at_once(
    request: Request,
    held_out: Mask,
    seeds: tuple[int, int],
    watcher: Watcher | None,
    checkpoint: Checkpoint | None,
    attempt: int,
    ranks: Ranks,
) -> Training:
    model = _started_model(request, held_out, seeds[0]).to(request.device)
    generator = torch.Generator(request.device).manual_seed(seeds[1])
    n_training = int((~held_out).sum())
    last = rounds_of(request.schedule, n_training, ranks.n).n_selecting
    adaptive = request.schedule.loadings_prior is not None and last > 0 and not request.options.composition
    selecting = _priors(model, request, held_out, model.n_latent, ranks) if adaptive and request.selects else None
    course = Course(
        request.cells,
        held_out,
        request.schedule,
        generator,
        watcher,
        checkpoint,
        attempt,
        ranks,
        request.hide_modality,
    )
    if selecting is not None:
        with engine_of(model, 1 / n_training, selecting, ranks) as engine:
            course.select(model, engine, selecting, last)
        kept = selecting.supported()
        model = without_vanished(model, kept, request)
    n_lasting = 0 if request.selects else model.n_latent
    lasting = _priors(model, request, held_out, n_lasting, ranks) if adaptive else None
    with engine_of(model, 1 / n_training, lasting, ranks) as engine:
        reason = course.run(model, engine, lasting)
    history = course.history
    ranks.shared(lambda: check_result(model, request.cells, held_out, history, request.schedule))
    if selecting is None:
        return Training(model, history, reason, shrunken=adaptive)
    model = with_vanished(model, kept, request)
    scales = [np.where(kept, scale, 0.0) for scale in selecting.scales]
    return Training(model, history, reason, scales, shrunken=adaptive)


def _priors(model: Model, request: Request, held_out: Mask, n_factors: int, ranks: Ranks) -> AdaptivePriors | None:
    """Of the covariates and of so many factors; None where there are none of either."""
    first, training = model.views[0], ~held_out
    covariates = [block.stop - block.start for block in level_blocks(first)] + [1] * first.n_continuous_cov
    if not n_factors and not covariates:
        return None
    views = request.cells.views(model.widths)
    priors = [
        AdaptivePrior(
            LIKELIHOODS[view.gene_likelihood],
            int(training[own.places].sum()),
            n_factors,
            covariates,
            ranks,
            int(training.sum()),
        )
        for view, own in zip(model.views, views, strict=True)
    ]
    return AdaptivePriors(priors)


@undisturbed(torch.device("cpu"))
def _started_model(request: Request, held_out: Mask, seed: int) -> Model:
    cells, generator = request.cells, torch.Generator("cpu").manual_seed(seed)
    model = built(request, request.options.n_latent, generator)
    # Totals of all cells: a batch whose training cells are few still gets a sound prior.
    for view, own in zip(model.views, cells.views(model.widths), strict=True):
        batch, everyone = own.cells.annotations.get("batch_index"), np.arange(own.cells.n_obs)
        library = own.cells.library(everyone) if model.fuses else own.cells.source.totals
        view.set_library_prior(
            # Without a library cells may have no counts; that prior is never asked for.
            torch.tensor(np.maximum(library, 1), dtype=torch.float32, device="cpu"),
            None if batch is None else torch.from_numpy(batch),
        )
    start_from_data(model, cells.subset(evenly(np.flatnonzero(~held_out), MAX_CELLS)))
    return model


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
