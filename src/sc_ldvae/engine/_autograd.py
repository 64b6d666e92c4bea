"""The module's own forward on dense minibatches, on any device and for every likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sc_ldvae.engine._adam import BETAS, EPS, RATES

if TYPE_CHECKING:
    from torch import Tensor

    from sc_ldvae.counts import Minibatch
    from sc_ldvae.nn import LDVAE, Elbo


class Autograd:
    """Scores."""

    def __init__(self, model: LDVAE) -> None:
        self._model = model
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def posterior(self, cells: Minibatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance of the normal variables, and the log library where it is latent."""
        z, log_library = self._model.encode(self._dense(cells))
        return z.mean.cpu(), z.variance.cpu(), None if log_library is None else log_library.mean[:, 0].cpu()

    @torch.no_grad()
    def elbo(self, cells: Minibatch, generator: torch.Generator) -> Elbo:
        """Terms of the ELBO at one draw of each cell."""
        terms: Elbo = self._model(**self._arguments(cells), generator=generator)
        return terms.to("cpu")

    @torch.no_grad()
    def log_weights(self, cells: Minibatch, generator: torch.Generator) -> Tensor:
        """Log importance weight of one draw of each cell."""
        return self._model.log_weights(**self._arguments(cells), generator=generator).cpu()

    def _arguments(self, cells: Minibatch) -> dict[str, Any]:
        annotations = {name: torch.from_numpy(a).to(self.device) for name, a in cells.annotations.items()}
        return {"x": self._dense(cells)} | annotations

    def _dense(self, cells: Minibatch) -> Tensor:
        return torch.from_numpy(cells.counts.toarray()).to(self.device)


class AutogradEngine(Autograd):
    """Trains with torch's Adam."""

    def __init__(self, model: LDVAE, prior_weight: float) -> None:
        super().__init__(model)
        self._prior_weight = prior_weight
        groups = [{"params": group, "rate": RATES[name]} for name, group in model.parameter_groups().items() if group]
        self._optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        terms: Elbo = self._model(**self._arguments(cells), generator=generator)
        loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self._optimizer.step()
        return terms
