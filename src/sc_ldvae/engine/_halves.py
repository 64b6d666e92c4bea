"""A step of training with autograd, in two halves on the model's device, between which the CPU is asked."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae.engine._ranks import moments_of
from sc_ldvae.nn import Elbo, Normal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.engine._ranks import Ranks
    from sc_ldvae.nn import LDVAE, Encoder, LinearDecoder


class Halves:
    """One step. What it holds can be given other values in place, and both halves run again."""

    terms: Elbo
    """Of the ELBO, before the step."""

    def __init__(
        self,
        model: LDVAE,
        optimizer: torch.optim.Optimizer,
        prior_weight: float,
        adaptive_prior: AdaptivePrior | None,
        ranks: Ranks,
        arguments: Mapping[str, Tensor],
        kl_weight: float,
        generator: torch.Generator,
    ) -> None:
        self._model, self._optimizer, self._generator = model, optimizer, generator
        self._prior_weight, self._prior, self._ranks = prior_weight, adaptive_prior, ranks
        x = arguments["x"]
        self.arguments = {**arguments, "kl_weight": x.new_full((), kl_weight)}
        if adaptive_prior is not None:
            self._seen = _Seen()
            self._pull = x.new_empty(adaptive_prior.n_rows, x.shape[1])
            self._penalty = x.new_empty(x.shape[1], adaptive_prior.n_factors)

    def forward(self) -> None:
        """The terms and the loss, and what the adaptive prior learns from."""
        arguments = dict(self.arguments)
        kl_weight = arguments.pop("kl_weight")
        with self._watched():
            terms: Elbo = self._model(**arguments, generator=self._generator)
        self._loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        self.terms = Elbo(*(term.detach() for term in terms))
        if self._prior is not None:
            self._observed = self._of_minibatch(self._prior)

    def observe(self) -> None:
        """Let the adaptive prior learn, and take from it what it adds to the loss."""
        if self._prior is not None:
            effects, counted, divergence = map(_numpy, self._observed)
            self._prior.observe(effects, counted, divergence, self._model.typical())
            self._pull.copy_(torch.from_numpy(self._prior.pull))
            self._penalty.copy_(torch.from_numpy(self._prior.penalty))

    def backward(self) -> None:
        """The gradient of the loss, and the step of the optimiser."""
        loss = self._loss if self._prior is None else self._loss + self._of_effects(self._prior)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self._prior is not None:
            self._slope = self._of_sizes(self._prior)
        if self._ranks.n > 1:
            gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
            self._ranks.average(*gradients, *moments_of(self._model))
        self._optimizer.step()

    def observe_slope(self) -> None:
        """Let the adaptive prior learn from the gradient, too."""
        if self._prior is not None:
            self._prior.observe_slope(_numpy(self._slope))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What the module computes and the gradient of the decoder's output are seen, for the adaptive prior."""
        hooks = []
        if self._prior is not None:
            hooks.append(self._model.z_encoder.register_forward_hook(self._seen.encoder))
            hooks.append(self._model.decoder.register_forward_hook(self._seen.decoder))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _of_minibatch(self, prior: AdaptivePrior) -> tuple[Tensor, Tensor, Tensor]:
        """Effects, counted and divergence, as `AdaptivePrior.observe` takes them."""
        x, u, q = self._counts(prior), self._seen.u, self._seen.posterior
        squares = torch.column_stack([u[:, -prior.n_rows :] ** 2, torch.ones_like(u[:, :1])])
        divergence = Normal(q.mean.T, q.variance.T).kl(0.0, 1.0)[: prior.n_factors] / len(x)
        return self._seen.weight.T[-prior.n_rows :], squares.T @ x / len(x), divergence

    def _of_effects(self, prior: AdaptivePrior) -> Tensor:
        """What has the gradient that the adaptive prior adds."""
        x, effects, z = self._counts(prior), self._seen.weight.T[-prior.n_rows :], self._seen.u[:, : prior.n_factors]
        return (self._pull * effects).sum() + 0.5 * ((x @ self._penalty) * z**2).sum() / len(x)

    def _counts(self, prior: AdaptivePrior) -> Tensor:
        """As the prior sees them."""
        x = self.arguments["x"]
        return x.sign() if prior.thresholded else x

    @torch.no_grad()
    def _of_sizes(self, prior: AdaptivePrior) -> Tensor:
        """Derivative of the mean log-likelihood by the log size of each factor's loadings."""
        loadings = self._seen.weight[:, : prior.n_factors]
        return -((self._seen.d_output @ loadings) * self._seen.u[:, : prior.n_factors]).sum(0)


class Prepared(NamedTuple):
    """A step, and what runs its halves."""

    halves: Halves
    forward: Callable[[], None]
    backward: Callable[[], None]


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
