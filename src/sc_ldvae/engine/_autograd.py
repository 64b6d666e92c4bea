"""The module's own forward on dense minibatches, on any device and for every likelihood."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.engine._adam import BETAS, EPS, RATES
from sc_ldvae.nn import Normal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sc_ldvae._typing import Floats
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._loadings_prior import LoadingsPrior
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

    def __init__(self, model: LDVAE, prior_weight: float, loadings_prior: LoadingsPrior | None = None) -> None:
        super().__init__(model)
        self._prior_weight, self._loadings_prior = prior_weight, loadings_prior
        groups = [{"params": group, "rate": RATES[name]} for name, group in model.parameter_groups().items() if group]
        self._optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        arguments = self._arguments(cells)
        with self._seen() as seen:
            terms: Elbo = self._model(**arguments, generator=generator)
        loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        if self._loadings_prior is not None:
            loss = loss + self._of_loadings(self._loadings_prior, arguments["x"], *seen)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self._optimizer.step()
        return terms

    @contextmanager
    def _seen(self) -> Iterator[list[Any]]:
        """Gets the posterior of the latent and the input of the decoder as the module computes them."""
        seen: list[Any] = []
        hooks = [
            self._model.z_encoder.register_forward_hook(lambda _, __, posterior: seen.append(posterior)),
            self._model.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs)),
        ]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _of_loadings(self, prior: LoadingsPrior, x: Tensor, posterior: Normal, u: Tensor) -> Tensor:
        """What has the gradient that the prior of the loadings adds."""
        loadings, z = self._model.decoder.affine(u)[0][:, : prior.n_latent].T, u[:, : prior.n_latent]
        squares = torch.column_stack([z**2, torch.ones_like(z[:, :1])])
        divergence = Normal(posterior.mean.T, posterior.variance.T).kl(0.0, 1.0) / len(x)
        prior.observe(*map(_numpy, (loadings, squares.T @ x / len(x), divergence)), self._model.typical())
        pull, penalty = (torch.from_numpy(values).to(x) for values in (prior.pull, prior.penalty_per_count))
        return (pull * loadings).sum() + 0.5 * ((x @ penalty) * z**2).sum() / len(x)


def _numpy(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
