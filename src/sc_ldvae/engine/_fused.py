"""The fused kernels: values and gradients in closed form from sparse counts, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae._tables import joined, parted
from sc_ldvae.engine._adam import BETAS, EPS, RATES, Adam
from sc_ldvae.engine._elbo import FusedElbo
from sc_ldvae.engine._pace import Pace
from sc_ldvae.engine._ranks import Ranks, moments_of
from sc_ldvae.kernels import TERMS, sparse_rows

if TYPE_CHECKING:
    from torch import Tensor

    from sc_ldvae._typing import Arrays
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE, Elbo


def can_be_fused(model: LDVAE) -> bool:
    """Whether there are kernels for the model where it is."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return on_cpu and len(model.blocks) == 1 and model.blocks[0].gene_likelihood in TERMS


class Fused:
    """Scores."""

    device = torch.device("cpu")

    def __init__(self, model: LDVAE, adaptive_prior: AdaptivePrior | None = None) -> None:
        self._model, self._fused = model, FusedElbo(model, adaptive_prior)

    def posterior(self, cells: Minibatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance of the normal variables, and the log library where it is latent."""
        n_latent = self._model.n_latent
        mean, variance = map(torch.from_numpy, self._fused.posterior(self._rows(cells)))
        return mean[:, :n_latent], variance[:, :n_latent], mean[:, -1] if mean.shape[1] > n_latent else None

    def elbo(self, cells: Minibatch, generator: torch.Generator) -> Elbo:
        """Terms of the ELBO at one draw of each cell."""
        return self._fused(self._rows(cells), cells.annotations, generator=generator)

    def log_weights(self, cells: Minibatch, generator: torch.Generator) -> Tensor:
        """Log importance weight of one draw of each cell."""
        return torch.from_numpy(self._fused.log_weights(self._rows(cells), cells.annotations, generator))

    def _rows(self, cells: Minibatch) -> SparseRows:
        counts, log_variational = cells.counts, self._model.log_variational
        pointers, genes = counts.indptr.astype(np.int64), counts.indices.astype(np.int32, copy=False)
        return sparse_rows(pointers, genes, counts.data, counts.shape[1], log_variational=log_variational)


class FusedEngine(Fused):
    """Trains with Adam on the flat buffers."""

    def __init__(
        self,
        model: LDVAE,
        prior_weight: float,
        adaptive_prior: AdaptivePrior | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(model, adaptive_prior)
        self._ranks = ranks or Ranks()
        # With the running moments of BatchNorm: each process has moved them by its own minibatch.
        self._averaged = [self._fused.gradient, *moments_of(model)]
        self._prior_weight, self._pace = prior_weight, Pace()
        sizes = {name: sum(p.numel() for p in group) for name, group in model.parameter_groups().items()}
        buffers = self._fused.values, self._fused.gradient
        stretches = [torch.split(buffer, list(sizes.values())) for buffer in buffers]
        self._adams = [
            (Adam(*stretch, betas=BETAS, eps=EPS), RATES[name])
            for name, *stretch in zip(sizes, *stretches, strict=True)
        ]

    def state(self) -> Arrays:
        """What steps depend on beside the model and its adaptive prior."""
        return joined({str(i): adam.state() for i, (adam, _) in enumerate(self._adams)})

    def load(self, state: Arrays) -> None:
        """Go on from what `state` has given."""
        for i, moments in parted(state).items():
            self._adams[int(i)][0].load(moments)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        with self._pace.step():
            terms = self._fused(
                self._rows(cells),
                cells.annotations,
                kl_weight=kl_weight,
                prior_weight=self._prior_weight,
                generator=generator,
            )
            self._ranks.average(*self._averaged)
            for adam, rate in self._adams:
                adam.step(lr * rate)
        return terms
