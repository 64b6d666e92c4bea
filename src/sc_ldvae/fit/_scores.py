"""What a model in evaluation mode says of cells: posteriors, and how probable their counts are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sc_ldvae.nn import Elbo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sc_ldvae._typing import Bar
    from sc_ldvae.counts import Cells
    from sc_ldvae.fit._engine import Engine
    from sc_ldvae.nn import LDVAE

# Cells that one evaluation holds at once.
CHUNK = 512


def posterior(
    model: LDVAE, engine: Engine, cells: Cells, chosen: Tensor, bar: Bar | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Latent (n_obs x n_latent), its variance before the softmax of 'ln', and library (n_obs) of the `chosen` cells."""
    parts = []
    for chunk in _chunks(chosen, bar):
        mean, variance, log_library = engine.posterior(chunk)
        if log_library is not None:
            library = log_library.exp()
        else:
            library = (cells.counts.totals if cells.size_factor is None else cells.size_factor)[chunk]
        parts.append((model.transform(mean), variance, library))
    latent, variance, library = (torch.cat(part) for part in zip(*parts, strict=True))
    return latent, variance, library


def elbo_terms(engine: Engine, chosen: Tensor, generator: torch.Generator, bar: Bar | None = None) -> Elbo:
    """Terms of the ELBO of the `chosen` cells at one draw each, in double precision."""
    chunks = [engine.elbo(chunk, generator) for chunk in _chunks(chosen, bar)]
    return Elbo(*(torch.cat(terms).double() for terms in zip(*chunks, strict=True)))


def log_weights(engine: Engine, chosen: Tensor, generator: torch.Generator, bar: Bar | None = None) -> Tensor:
    """Log importance weights of the `chosen` cells at one draw each, in double precision."""
    return torch.cat([engine.log_weights(chunk, generator) for chunk in _chunks(chosen, bar)]).double()


def mean_elbo(engine: Engine, chosen: Tensor, n_draws: int = 1, seed: int = 0) -> float:
    """Mean ELBO of the `chosen` cells at KL weight 1, in nats.

    The draws depend on the seed alone, so that two states of a model differ by themselves alone.
    """
    generator = torch.Generator(chosen.device).manual_seed(seed)
    per_draw = [elbo_terms(engine, chosen, generator).per_cell().mean() for _ in range(n_draws)]
    return math.fsum(map(float, per_draw)) / n_draws


def _chunks(chosen: Tensor, bar: Bar | None) -> Iterator[Tensor]:
    for chunk in torch.split(chosen, CHUNK):
        yield chunk
        if bar is not None:
            bar.update(len(chunk))
