"""The linear decoder: one affine map of latent and covariates, with BatchNorm folded in at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from sc_ldvae.nn._encoder import BATCH_NORM_EPS
from sc_ldvae.nn._state import FACTORY

MOMENTUM = 0.05


class LinearDecoder(nn.Module):
    """BatchNorm(W u), or W u + b, for inputs u = [z ; covariates], as one affine map.

    BatchNorm of a linear map needs only the mean and the covariance of u: the output's mean is ``W mean(u)``, its
    variance ``diag(W cov(u) W')``. So nothing of size cells x genes is normalised, and the running statistics are
    those of u, which barely move while W is being learnt.
    """

    running_mean: Tensor
    running_cov: Tensor

    def __init__(self, n_input: int, n_output: int, *, bias: bool, use_batch_norm: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_output, n_input, **FACTORY))
        # BatchNorm would take a bias out again.
        self.bias = nn.Parameter(torch.zeros(n_output, **FACTORY)) if bias and not use_batch_norm else None
        self.gamma = nn.Parameter(torch.ones(n_output, **FACTORY)) if use_batch_norm else None
        self.beta = nn.Parameter(torch.zeros(n_output, **FACTORY)) if use_batch_norm else None
        self.register_buffer("running_mean", torch.zeros(n_input, **FACTORY))
        self.register_buffer("running_cov", torch.eye(n_input, **FACTORY))

    def forward(self, u: Tensor) -> Tensor:
        """Output, n_cells x n_output, of inputs `u`, n_cells x n_input."""
        moments = self._moments(u)
        if self.training and self.gamma is not None:
            self._update(*(moment.detach() for moment in moments))
        return F.linear(u, *self._affine(*moments))

    def affine(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the whole map for these inputs; while training, BatchNorm takes their moments."""
        return self._affine(*self._moments(u))

    def _moments(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance that BatchNorm takes."""
        return _moments(u) if self.training and self.gamma is not None else (self.running_mean, self.running_cov)

    @property
    def intercept(self) -> nn.Parameter | None:
        """What is learnt for the output at its mean input, if anything is."""
        return self.bias if self.beta is None else self.beta

    @property
    def slope(self) -> nn.Parameter:
        """What scales the output's variation."""
        return self.weight if self.gamma is None else self.gamma

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight, n_output x n_input, and bias, n_output, of the whole map, BatchNorm with running statistics."""
        return self._affine(self.running_mean, self.running_cov)

    def _affine(self, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
        if self.gamma is None or self.beta is None:
            return self.weight, self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        variance = ((self.weight @ cov) * self.weight).sum(1)
        scale = self.gamma * (variance + BATCH_NORM_EPS).rsqrt()
        return scale[:, None] * self.weight, self.beta - scale * (self.weight @ mean)

    @torch.no_grad()
    def _update(self, mean: Tensor, cov: Tensor) -> None:
        self.running_mean.lerp_(mean, MOMENTUM)
        self.running_cov.lerp_(cov, MOMENTUM)


class Grouped(nn.Module):
    """One value per gene for each group of cells."""

    def __init__(self, n_groups: int, n_output: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_groups, n_output, **FACTORY))

    def forward(self, group: Tensor | None) -> Tensor:
        """Row of each cell's group, n_cells x n_output; with one group for all, 1 x n_output."""
        return self.table if group is None or len(self.table) == 1 else self.table[group]


def _moments(u: Tensor) -> tuple[Tensor, Tensor]:
    mean = u.mean(0)
    centred = u - mean
    return mean, centred.T @ centred / len(u)
