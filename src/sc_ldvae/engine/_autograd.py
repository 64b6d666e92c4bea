"""The module's own forward on dense minibatches, on any device and for every likelihood."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.engine._adam import BETAS, EPS, RATES
from sc_ldvae.nn import Normal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from sc_ldvae._typing import Floats
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.nn import LDVAE, Elbo, Encoder, LinearDecoder


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

    def __init__(self, model: LDVAE, prior_weight: float, adaptive_prior: AdaptivePrior | None = None) -> None:
        super().__init__(model)
        self._prior_weight, self._adaptive_prior = prior_weight, adaptive_prior
        groups = [{"params": group, "rate": RATES[name]} for name, group in model.parameter_groups().items() if group]
        self._optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        arguments, prior = self._arguments(cells), self._adaptive_prior
        if prior is not None and not prior.begin_step():
            prior = None
        with self._seen(prior) as seen:
            terms: Elbo = self._model(**arguments, generator=generator)
        loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        if prior is not None:
            loss = loss + self._of_effects(prior, arguments["x"], seen)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if prior is not None:
            prior.observe_slope(self._slope(prior, seen))
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self._optimizer.step()
        return terms

    def state(self) -> dict[str, NDArray[Any]]:
        """What steps depend on beside the model."""
        moments = {
            f"{i}/{name}": value.cpu().numpy()
            for i, of_parameter in self._optimizer.state_dict()["state"].items()
            for name, value in of_parameter.items()
        }
        prior = {} if self._adaptive_prior is None else self._adaptive_prior.state()
        return moments | {f"prior/{name}": value for name, value in prior.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` has given."""
        moments: dict[int, dict[str, Tensor]] = {}
        prior = {}
        for path, value in state.items():
            owner, name = path.split("/")
            if owner == "prior":
                prior[name] = value
            else:
                moments.setdefault(int(owner), {})[name] = torch.from_numpy(value)
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
        if self._adaptive_prior is not None:
            self._adaptive_prior.load(prior)

    @contextmanager
    def _seen(self, prior: AdaptivePrior | None) -> Iterator[_Seen]:
        """What the module computes and the gradient of the decoder's output, for the adaptive prior of this step."""
        seen, hooks = _Seen(), []
        if prior is not None:
            hooks.append(self._model.z_encoder.register_forward_hook(seen.encoder))
            hooks.append(self._model.decoder.register_forward_hook(seen.decoder))
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _of_effects(self, prior: AdaptivePrior, x: Tensor, seen: _Seen) -> Tensor:
        """What has the gradient that the adaptive prior adds."""
        u, q, n_cells = seen.u, seen.posterior, len(x)
        effects, z = seen.weight.T[-prior.n_rows :], u[:, : prior.n_factors]
        squares = torch.column_stack([u[:, -prior.n_rows :] ** 2, torch.ones_like(u[:, :1])])
        divergence = Normal(q.mean.T, q.variance.T).kl(0.0, 1.0)[: prior.n_factors] / n_cells
        counted = squares.T @ x / n_cells
        prior.observe(_numpy(effects), _numpy(counted), _numpy(divergence), self._model.typical())
        pull, penalty = (torch.from_numpy(values).to(x) for values in (prior.pull, prior.penalty))
        return (pull * effects).sum() + 0.5 * ((x @ penalty) * z**2).sum() / n_cells

    @torch.no_grad()
    def _slope(self, prior: AdaptivePrior, seen: _Seen) -> Floats:
        """Derivative of the mean log-likelihood by the log size of each factor's loadings."""
        loadings = seen.weight[:, : prior.n_factors]
        return _numpy(-((seen.d_output @ loadings) * seen.u[:, : prior.n_factors]).sum(0))


class _Seen:
    """What a forward and a backward have come by."""

    posterior: Normal
    u: Tensor
    """Inputs of the decoder."""
    weight: Tensor
    """Its folded weight, n_genes x inputs."""
    d_output: Tensor
    """Gradient of the loss by its outputs, n_cells x n_genes."""

    def encoder(self, _: Encoder, __: tuple[Tensor], posterior: Normal) -> None:
        self.posterior = posterior

    def decoder(self, decoder: LinearDecoder, inputs: tuple[Tensor], output: Tensor) -> None:
        (self.u,) = inputs
        self.weight = decoder.affine(self.u)[0]
        output.register_hook(partial(setattr, self, "d_output"))  # type: ignore[no-untyped-call]


def _numpy(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
