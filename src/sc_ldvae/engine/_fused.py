"""The fused kernels: values and gradients in closed form from sparse counts, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.engine._adam import BETAS, EPS, RATES, Adam
from sc_ldvae.engine._elbo import FusedElbo
from sc_ldvae.engine._pace import Pace
from sc_ldvae.engine._ranks import Ranks, moments_of
from sc_ldvae.engine._view import Shown
from sc_ldvae.kernels import TERMS, rows_between, sparse_rows

if TYPE_CHECKING:
    from torch import Tensor

    from sc_ldvae._typing import Arrays
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.engine._elbo import Encoded
    from sc_ldvae.nn import Elbo, Model


def can_be_fused(model: Model) -> bool:
    """Whether there are kernels for the model where it is."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return on_cpu and all(view.gene_likelihood in TERMS for view in model.views)


class Fused:
    """Scores."""

    device = torch.device("cpu")

    def __init__(self, model: Model, adaptive_priors: AdaptivePriors | None = None) -> None:
        self._model, self._fused = model, FusedElbo(model, adaptive_priors)

    def posterior(self, cells: Minibatch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Mean and variance of the normal variables; log library of each modality's cells, where it is latent."""
        moments, libraries = self._fused.posterior(len(cells), self._shown(cells))
        mean, variance = map(torch.from_numpy, moments)
        return mean, variance, [None if one is None else torch.from_numpy(one) for one in libraries]

    def encoded(self, cells: Minibatch) -> Encoded:
        """What the encoders say of cells that are to be drawn from several times."""
        return self._fused.encoded(self._shown(cells))

    def elbo(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Elbo:
        """Terms of the ELBO at one draw of each cell."""
        return self._fused(len(cells), self._shown(cells), generator=generator, encoded=encoded)

    def log_weights(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Tensor:
        """Log importance weight of one draw of each cell."""
        return torch.from_numpy(self._fused.log_weights(len(cells), self._shown(cells), generator, encoded))

    def _shown(self, cells: Minibatch) -> list[Shown]:
        """What each modality's model is shown."""
        counts = cells.counts
        pointers, genes = counts.indptr.astype(np.int64), counts.indices.astype(np.int32, copy=False)
        shown, start = [], 0
        for view, (places, known) in zip(self._model.views, cells.views(), strict=True):
            stop, own = start + view.n_input, (pointers, genes, counts.data)
            if places is not None:
                own = rows_between(*own, places, start, stop)
            rows = sparse_rows(*own, view.n_input, log_variational=view.log_variational)
            shown.append(Shown(slice(None) if places is None else places, rows, known))
            start = stop
        return shown


class FusedEngine(Fused):
    """Trains with Adam on the flat buffers."""

    def __init__(
        self,
        model: Model,
        prior_weight: float,
        adaptive_priors: AdaptivePriors | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(model, adaptive_priors)
        self._ranks = ranks or Ranks()
        # With the running moments of BatchNorm: each process has moved them by its own minibatch.
        self._averaged = [self._fused.gradient, *moments_of(model)]
        self._prior_weight, self._pace = prior_weight, Pace()
        # What other processes are to see, has to be there as a whole.
        self._whole = self._ranks.n > 1
        self._adam = Adam(
            self._fused.values,
            self._fused.gradient,
            betas=BETAS,
            eps=EPS,
            groups=[(size, RATES[name]) for name, size in self._fused.sizes.items()],
            first_layers=[layer.weight for layer in self._fused.first_layers],
        )

    def state(self) -> Arrays:
        """What steps depend on beside the model and its adaptive prior."""
        return self._adam.state()

    def load(self, state: Arrays) -> None:
        """Go on from what `state` has given."""
        self._adam.load(state)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        with self._pace.step():
            terms = self._fused(
                len(cells),
                self._shown(cells),
                kl_weight=kl_weight,
                prior_weight=self._prior_weight,
                generator=generator,
                whole=self._whole,
            )
            self._ranks.average(*self._averaged)
            self._adam.step(lr, () if self._whole else self._fused.first_layers)
        return terms
