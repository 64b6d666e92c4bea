"""What a model in evaluation mode says of cells: posteriors, and how probable their counts are."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from sc_ldvae._memory import check_memory
from sc_ldvae.engine import scorer_of
from sc_ldvae.nn import Elbo, undisturbed
from sc_ldvae.record import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.counts import Cells, Minibatch
    from sc_ldvae.engine import Scorer
    from sc_ldvae.nn import Model

# Cells that one evaluation holds at once.
CHUNK = 512


def posterior(model: Model, scorer: Scorer, cells: Cells, chosen: Positions, bar: Bar | None = None) -> State:
    """Latent, its variance before the softmax of 'ln', and library of the `chosen` cells.

    Of several modalities, the library is n_obs x modalities; what a cell lacks is missing.
    """
    latent, variance = np.empty((2, len(chosen), model.n_latent), np.float32)
    library = cells.library(chosen)
    start = 0
    for minibatch in _chunks(cells, chosen, bar):
        mean, own_variance, log_libraries = scorer.posterior(minibatch)
        own = slice(start, start + len(minibatch))
        latent[own], variance[own] = model.transform(mean).numpy(), own_variance.numpy()
        for place, ((has, _), log_library) in enumerate(zip(minibatch.views(), log_libraries, strict=True)):
            if log_library is None:
                continue
            of_view = library[own] if has is None else library[own, place]
            of_view[slice(None) if has is None else has] = log_library.exp().numpy()
        start = own.stop
    return State(latent, variance, library)


def elbo_terms(
    scorer: Scorer, cells: Cells, chosen: Positions, generator: torch.Generator, n_draws: int, bar: Bar | None = None
) -> Iterator[Elbo]:
    """Terms of the ELBO of the `chosen` cells at one draw each, in double precision, so many times."""
    for chunks in _draws(scorer, partial(scorer.elbo, generator=generator), cells, chosen, n_draws, bar):
        yield Elbo(*(torch.cat(terms).double() for terms in zip(*chunks, strict=True)))


def log_weights(
    scorer: Scorer, cells: Cells, chosen: Positions, generator: torch.Generator, n_draws: int, bar: Bar | None = None
) -> Iterator[Tensor]:
    """Log importance weights of the `chosen` cells at one draw each, in double precision, so many times."""
    for chunks in _draws(scorer, partial(scorer.log_weights, generator=generator), cells, chosen, n_draws, bar):
        yield torch.cat(chunks).double()


def mean_elbo(scorer: Scorer, cells: Cells, chosen: Positions, n_draws: int = 1, seed: int = 0) -> float:
    """Mean ELBO of the `chosen` cells at KL weight 1, in nats.

    The draws depend on the seed alone, so that two states of a model differ by themselves alone.
    """
    generator = torch.Generator(scorer.device).manual_seed(seed)
    terms = elbo_terms(scorer, cells, chosen, generator, n_draws)
    return math.fsum(float(one.per_cell().mean()) for one in terms) / n_draws


def _draws(
    scorer: Scorer,
    score: Callable[..., Any],
    cells: Cells,
    chosen: Positions,
    n_draws: int,
    bar: Bar | None,
) -> Iterator[list[Any]]:
    """Scores of some cells after the others, draw after draw; the cells are encoded once."""
    encoded: list[Any] = []
    for draw in range(n_draws):
        scores = []
        for place, minibatch in enumerate(_chunks(cells, chosen, bar)):
            if draw == 0:
                encoded.append(scorer.encoded(minibatch) if n_draws > 1 else None)
            scores.append(score(minibatch, encoded=encoded[place]))
        yield scores


def _chunks(cells: Cells, chosen: Positions, bar: Bar | None) -> Iterator[Minibatch]:
    for minibatch in cells.chunks(chosen, CHUNK):
        yield minibatch
        if bar is not None:
            bar.update(len(minibatch))


@undisturbed(torch.device("cpu"))
def elbo_of_cells(model: Model, cells: Cells, n_draws: int, seed: int, *, shown: bool) -> Floats:
    """Mean ELBO of each cell over draws, n_obs."""
    terms = _terms_of_cells(model, cells, n_draws, seed, shown=shown)
    return torch.stack([one.per_cell() for one in terms]).mean(0).numpy()


@undisturbed(torch.device("cpu"))
def errors_of_cells(model: Model, cells: Cells, n_draws: int, seed: int, *, shown: bool) -> Floats:
    """Minus the mean log-likelihood of each cell over draws, n_obs."""
    terms = _terms_of_cells(model, cells, n_draws, seed, shown=shown)
    return -torch.stack([one.log_likelihood for one in terms]).mean(0).numpy()


@undisturbed(torch.device("cpu"))
def marginals_of_cells(model: Model, cells: Cells, n_draws: int, seed: int, *, shown: bool) -> Floats:
    """Log of the mean importance weight of each cell over draws, n_obs (Burda et al. 2016)."""
    everyone, total = np.arange(cells.n_obs), torch.full((cells.n_obs,), -torch.inf, dtype=torch.float64, device="cpu")
    with scorer_of(model) as scorer, _bar_of_draws(cells, n_draws, shown=shown) as bar:
        generator = torch.Generator(scorer.device).manual_seed(seed)
        for weights in log_weights(scorer, cells, everyone, generator, n_draws, bar):
            total = torch.logaddexp(total, weights)
    return (total - np.log(n_draws)).numpy()


def _terms_of_cells(model: Model, cells: Cells, n_draws: int, seed: int, *, shown: bool) -> list[Elbo]:
    check_memory(
        n_draws * cells.n_obs * len(Elbo._fields) * 8,
        f"{n_draws} draws of {cells.n_obs} cells",
        "Ask for fewer draws (n_samples).",
    )
    everyone = np.arange(cells.n_obs)
    with scorer_of(model) as scorer, _bar_of_draws(cells, n_draws, shown=shown) as bar:
        generator = torch.Generator(scorer.device).manual_seed(seed)
        return list(elbo_terms(scorer, cells, everyone, generator, n_draws, bar))


def _bar_of_draws(cells: Cells, n_draws: int, *, shown: bool) -> Bar:
    return tqdm(total=cells.n_obs * n_draws, unit="draw", disable=not shown)
