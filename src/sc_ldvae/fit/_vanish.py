"""A model without some of its factors, and with places for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.fit._build import built
from sc_ldvae.nn import VARIANCE_FLOOR

if TYPE_CHECKING:
    from sc_ldvae._typing import Mask, Positions
    from sc_ldvae.fit._request import Request
    from sc_ldvae.nn import Model

# Of an expert that knows nothing: beside the prior's, its precision is not seen in single precision.
_KNOWS_NOTHING = 30.0


def without_vanished(model: Model, kept: Mask, request: Request) -> Model:
    """The model with the `kept` factors alone, n_latent."""
    places = np.flatnonzero(kept)
    return _moved(model, places, np.arange(len(places)), len(places), request)


@torch.no_grad()
def with_vanished(model: Model, kept: Mask, request: Request) -> Model:
    """That model with places for the others: their loadings are zero, and their posterior is the prior."""
    places = np.flatnonzero(kept)
    padded = _moved(model, np.arange(len(places)), places, len(kept), request)
    for view in padded.views:
        bias = view.z_encoder.log_variance.bias
        gone = torch.from_numpy(~kept).to(bias.device)
        bias[gone] = _KNOWS_NOTHING if padded.fuses else math.log(1 - VARIANCE_FLOOR)
    return padded


@torch.no_grad()
def _moved(model: Model, source: Positions, target: Positions, n_latent: int, request: Request) -> Model:
    """The model with other numbers of factors: those of the places `source` go to `target`, all else is zero there."""
    if n_latent == model.n_latent:
        return model
    state, device = model.state_dict(), next(model.parameters()).device
    # Every value is filled below.
    generator = torch.Generator("cpu").manual_seed(0)
    moved = built(request, n_latent, generator).to(device)
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
