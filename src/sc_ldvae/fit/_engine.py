"""What computes a training step: the fused kernels on the CPU, plain autograd on every other device."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch

from sc_ldvae.nn._fused import Adam, FusedElbo, Pace, SparseRows, as_many_threads_as_torch, gather_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sc_ldvae.counts import Cells
    from sc_ldvae.nn import LDVAE, Elbo

BETAS = (0.9, 0.95)
# The gradients of rare genes are far below torch's default eps after the mean over cells.
EPS = 1e-8
# Learning rates as multiples of the schedule's. The encoders' many weights only follow; dispersions have far to go.
RATES = {"encoder": 0.15, "decoder": 1.0, "dispersion": 1.5}


class Engine(Protocol):
    """A model, its cells, and an optimiser of its parameters. `chosen` are integer positions of cells."""

    def step(self, chosen: Tensor, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step of Adam on minus the mean ELBO; the terms before the step."""

    def elbo(self, chosen: Tensor, generator: torch.Generator) -> Elbo:
        """Terms of the ELBO, the model being in evaluation mode."""

    def log_weights(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Log importance weight of one draw of each cell, the model being in evaluation mode."""

    def posterior(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance of the normal variables, n_cells x n_latent, and the log library where it is latent."""


@contextmanager
def engine_of(model: LDVAE, cells: Cells, prior_weight: float = 0.0) -> Iterator[Engine]:
    """The engine for the model's device; the model's prior counts `prior_weight` times in the loss."""
    if cells.counts.values.device.type == "cpu":
        with as_many_threads_as_torch():
            yield _Fused(model, cells, prior_weight)
    else:
        yield Autograd(model, cells, prior_weight)


class Autograd:
    """The module's own forward on dense minibatches."""

    def __init__(self, model: LDVAE, cells: Cells, prior_weight: float) -> None:
        self._model, self._cells, self._prior_weight = model, cells, prior_weight
        groups = [{"params": own, "rate": RATES[name]} for name, own in model.parameter_groups().items() if own]
        self._optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)

    def step(self, chosen: Tensor, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        terms: Elbo = self._model(**self._cells.minibatch(chosen), generator=generator)
        loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self._optimizer.step()
        return terms

    @torch.no_grad()
    def elbo(self, chosen: Tensor, generator: torch.Generator) -> Elbo:
        terms: Elbo = self._model(**self._cells.minibatch(chosen), generator=generator)
        return terms

    @torch.no_grad()
    def log_weights(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        return self._model.log_weights(**self._cells.minibatch(chosen), generator=generator)

    @torch.no_grad()
    def posterior(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        z, log_library = self._model.encode(self._cells.counts.tile(chosen))
        return z.mean, z.variance, None if log_library is None else log_library.mean[:, 0]


class _Fused:
    def __init__(self, model: LDVAE, cells: Cells, prior_weight: float) -> None:
        self._model, self._cells, self._prior_weight = model, cells, prior_weight
        self._fused, self._pace = FusedElbo(model), Pace()
        sizes = {name: sum(p.numel() for p in own) for name, own in model.parameter_groups().items()}
        buffers = self._fused.values, self._fused.gradient
        stretches = [torch.split(buffer, list(sizes.values())) for buffer in buffers]
        self._adams = [
            (Adam(*own, betas=BETAS, eps=EPS), RATES[name]) for name, *own in zip(sizes, *stretches, strict=True)
        ]

    def step(self, chosen: Tensor, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        with self._pace.step():
            terms = self._fused(
                self._rows(chosen),
                self._cells.annotations(chosen),
                kl_weight=kl_weight,
                prior_weight=self._prior_weight,
                generator=generator,
            )
            for adam, rate in self._adams:
                adam.step(lr * rate)
        return terms

    def elbo(self, chosen: Tensor, generator: torch.Generator) -> Elbo:
        return self._fused(self._rows(chosen), self._cells.annotations(chosen), generator=generator)

    def log_weights(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        weights = self._fused.log_weights(self._rows(chosen), self._cells.annotations(chosen), generator)
        return torch.from_numpy(weights)

    def posterior(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        n_latent = self._model.n_latent
        mean, variance = map(torch.from_numpy, self._fused.posterior(self._rows(chosen)))
        return mean[:, :n_latent], variance[:, :n_latent], mean[:, -1] if mean.shape[1] > n_latent else None

    def _rows(self, chosen: Tensor) -> SparseRows:
        counts = self._cells.counts
        matrix = (counts.indptr.numpy(), counts.indices.numpy(), counts.values.numpy(), counts.n_vars)
        return gather_rows(*matrix, chosen.numpy(), log_variational=self._model.log_variational)
