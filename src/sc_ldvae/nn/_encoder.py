"""The encoder: counts of a cell to mean and variance of a normal posterior."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sc_ldvae.nn._dropout import kept
from sc_ldvae.nn._state import FACTORY

# Constants of the reference implementation.
BATCH_NORM_EPS = 1e-3
VARIANCE_FLOOR = 1e-4


class Normal(NamedTuple):
    """Mean and variance of independent normal variables, both n_cells x n."""

    mean: Tensor
    variance: Tensor

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """One reparametrised draw per cell."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.variance.sqrt() * noise

    def kl(self, prior_mean: Tensor | float, prior_variance: Tensor | float) -> Tensor:
        """Kullback-Leibler divergence from a normal prior in nats, summed over the variables of each cell."""
        ratio = self.variance / prior_variance
        distance = (self.mean - prior_mean) ** 2 / prior_variance
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(1)

    def log_density_ratio(self, values: Tensor, prior: Normal) -> Tensor:
        """Log density of the values under a normal prior less that under these variables, summed for each cell."""
        ratio = self.variance / prior.variance
        own, of_prior = ((values - q.mean) ** 2 / q.variance for q in (self, prior))
        return 0.5 * (own - of_prior + ratio.log()).sum(1)


class Linear(nn.Linear):
    """A linear layer whose values are not drawn yet, so that building a model leaves the global generator alone."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, **FACTORY)

    def reset_parameters(self) -> None:
        """They stay as they are."""


class Layer(nn.Module):
    """Linear, BatchNorm, ReLU, Dropout."""

    def __init__(self, n_in: int, n_out: int, dropout_rate: float) -> None:
        super().__init__()
        self.linear = Linear(n_in, n_out)
        self.norm = nn.BatchNorm1d(n_out, eps=BATCH_NORM_EPS, **FACTORY)
        self.dropout_rate = dropout_rate

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        h = torch.relu(self.norm(self.linear(x)))
        if not self.training:
            return h
        # Not torch's dropout: it draws from the global generator only.
        return h * kept(h, self.dropout_rate, generator)


class Encoder(nn.Module):
    """`n_layers` hidden layers, then a linear head each for mean and log variance."""

    def __init__(self, n_input: int, n_output: int, *, n_hidden: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        widths = [n_input] + [n_hidden] * n_layers
        self.layers = nn.ModuleList(Layer(a, b, dropout_rate) for a, b in pairwise(widths))
        self.mean = Linear(n_hidden, n_output)
        self.log_variance = Linear(n_hidden, n_output)

    def hidden(self) -> list[Layer]:
        """The hidden layers, from the counts on."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Normal:
        for layer in self.hidden():
            x = layer(x, generator)
        return Normal(self.mean(x), self.log_variance(x).exp() + VARIANCE_FLOOR)
