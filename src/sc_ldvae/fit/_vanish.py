"""A model without some of its factors, and with places for them."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.nn import LDVAE, VARIANCE_FLOOR

if TYPE_CHECKING:
    from sc_ldvae._options import Levels, ModelOptions
    from sc_ldvae._typing import Mask, Positions


def without_vanished(model: LDVAE, kept: Mask, options: ModelOptions, levels: Levels) -> LDVAE:
    """The model with the `kept` factors alone, n_latent of the options."""
    places = np.flatnonzero(kept)
    return _moved(model, places, np.arange(len(places)), len(places), options, levels)


@torch.no_grad()
def with_vanished(model: LDVAE, kept: Mask, options: ModelOptions, levels: Levels) -> LDVAE:
    """That model with places for the others: their loadings are zero, and their posterior is the prior."""
    places = np.flatnonzero(kept)
    padded = _moved(model, np.arange(len(places)), places, len(kept), options, levels)
    gone = torch.from_numpy(~kept).to(padded.z_encoder.log_variance.bias.device)
    padded.z_encoder.log_variance.bias[gone] = math.log(1 - VARIANCE_FLOOR)
    return padded


@torch.no_grad()
def _moved(
    model: LDVAE, source: Positions, target: Positions, n_latent: int, options: ModelOptions, levels: Levels
) -> LDVAE:
    """The model with other numbers of factors: those of the places `source` go to `target`, all else is zero there."""
    if n_latent == model.n_latent:
        return model
    state, device = model.state_dict(), next(model.parameters()).device
    # Every value is filled below.
    generator = torch.Generator("cpu").manual_seed(0)
    options = replace(options, n_latent=n_latent)
    moved = LDVAE(model.n_input, **asdict(options), **asdict(levels), generator=generator).to(device)
    for name, values in moved.state_dict().items():
        before = state[name]
        # The axes of the factors are those whose size is another one; what follows the factors are the covariates.
        here, there = _places(values, before, target, n_latent), _places(before, values, source, model.n_latent)
        values.zero_()[here] = before[there]
    return moved.train(model.training)


def _places(tensor: torch.Tensor, other: torch.Tensor, factors: Positions, n_latent: int) -> tuple[torch.Tensor, ...]:
    """Indices of what both have, along all axes."""
    axes = [
        np.arange(size) if size == size_of_other else np.concatenate([factors, np.arange(n_latent, size)])
        for size, size_of_other in zip(tensor.shape, other.shape, strict=True)
    ]
    return tuple(torch.from_numpy(index).to(tensor.device) for index in np.ix_(*axes))
