"""A step of training with autograd, in two halves on the model's device, between which the CPU is asked."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae.counts import PRESENT
from sc_ldvae.engine._ranks import moments_of
from sc_ldvae.nn import Elbo, Normal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.engine._ranks import Ranks
    from sc_ldvae.nn import LDVAE, LinearDecoder, Model


class Halves:
    """One step. What it holds can be given other values in place, and both halves run again."""

    terms: Elbo
    """Of the ELBO, before the step."""

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        prior_weight: float,
        adaptive_priors: AdaptivePriors | None,
        ranks: Ranks,
        arguments: Mapping[str, Tensor],
        kl_weight: float,
        generator: torch.Generator,
    ) -> None:
        self._model, self._optimizer, self._generator = model, optimizer, generator
        self._prior_weight, self._priors, self._ranks = prior_weight, adaptive_priors, ranks
        x = arguments["x"]
        self.arguments = {**arguments, "kl_weight": x.new_full((), kl_weight)}
        self._of_views: list[_OfView] = []
        if adaptive_priors is not None:
            self._posterior, stop = _Seen(), 0
            for place, view in enumerate(model.views):
                start, stop = stop, stop + view.n_input
                own, present = x[:, start:stop], self.arguments.get(PRESENT)
                has = None if present is None else present[:, place]
                self._of_views.append(_OfView(view, adaptive_priors, place, own, has, model.weights[place]))

    def forward(self) -> None:
        """The terms and the loss, and what the adaptive prior learns from."""
        arguments = dict(self.arguments)
        kl_weight = arguments.pop("kl_weight")
        with self._watched():
            terms: Elbo = self._model(**arguments, generator=self._generator)
        self._loss = -terms.per_cell(kl_weight).mean() - self._prior_weight * self._model.log_prior()
        self.terms = Elbo(*(term.detach() for term in terms))
        if self._priors is not None:
            q = self._posterior.output
            self._divergence = Normal(q.mean.T, q.variance.T).kl(0.0, 1.0)[: self._priors.n_factors].detach() / len(
                q.mean
            )
            for one in self._of_views:
                one.look()

    def observe(self) -> None:
        """Let the adaptive priors learn, and take from them what they add to the loss."""
        for one in self._of_views:
            one.observe(self._divergence)

    def backward(self) -> None:
        """The gradient of the loss, and the step of the optimiser."""
        loss = self._loss
        for one in self._of_views:
            loss = loss + one.loss()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self._model.fuses:
            # Those of a modality that no cell of the minibatch has: Adam moves them on, and other processes have some.
            for parameter in self._model.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        for one in self._of_views:
            one.measure()
        if self._ranks.n > 1:
            gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
            self._ranks.average(*gradients, *moments_of(self._model))
        self._optimizer.step()

    def observe_slope(self) -> None:
        """Let the adaptive priors learn from the gradient, too."""
        for one in self._of_views:
            one.observe_slope()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What the module computes and the gradients of the decoders' outputs are seen, for the adaptive priors."""
        hooks = [one.view.decoder.register_forward_hook(one.decoder) for one in self._of_views]
        if self._priors is not None:
            hooks.append(self._model.posterior_module.register_forward_hook(self._posterior.keep))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class Prepared(NamedTuple):
    """A step, and what runs its halves."""

    halves: Halves
    forward: Callable[[], None]
    backward: Callable[[], None]


class _Seen:
    """What a module has given."""

    output: Normal

    def keep(self, _: object, __: object, output: Normal) -> None:
        self.output = output


class _OfView:
    """What the adaptive prior of one modality is told, and what it adds to the loss."""

    u: Tensor
    """Inputs of the decoder, of the cells that have the modality."""
    weight: Tensor
    """Its folded weight, n_genes x inputs."""
    d_output: Tensor
    """Gradient of the loss by its outputs, n_cells x n_genes."""

    def __init__(
        self, view: LDVAE, priors: AdaptivePriors, place: int, x: Tensor, has: Tensor | None, weight: float
    ) -> None:
        self.view, self._priors, self._place, self._in_loss = view, priors, place, weight
        self._prior: AdaptivePrior = priors.of_views[place]
        self._x, self._has = x, has
        self._pull = x.new_empty(self._prior.n_rows, x.shape[1])
        self._penalty = x.new_empty(x.shape[1], self._prior.n_factors)
        self._seen = False

    def decoder(self, decoder: LinearDecoder, inputs: tuple[Tensor], output: Tensor) -> None:
        """Of a forward and a backward."""
        (self.u,) = inputs
        self._seen = True
        self.weight = decoder.affine(self.u)[0]
        output.register_hook(partial(setattr, self, "d_output"))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def look(self) -> None:
        """Effects and counted, as `AdaptivePrior.observe` takes them."""
        if self._seen:
            n_rows, x = self._prior.n_rows, self._own_x
            squares = torch.column_stack([self.u[:, -n_rows:] ** 2, torch.ones_like(self.u[:, :1])])
            self._observed = self.weight.T[-n_rows:], squares.T @ x / len(x)

    def observe(self, divergence: Tensor) -> None:
        if self._seen:
            effects, counted, shared = map(_numpy, (*self._observed, divergence))
            self._prior.observe(effects, counted, self._priors.share(self._place, shared), self.view.typical())
            self._pull.copy_(torch.from_numpy(self._prior.pull))
            self._penalty.copy_(torch.from_numpy(self._prior.penalty))

    def loss(self) -> Tensor | float:
        """What has the gradient that the adaptive prior adds."""
        if not self._seen:
            return 0.0
        effects, z = self.weight.T[-self._prior.n_rows :], self.u[:, : self._prior.n_factors]
        return (self._pull * effects).sum() + 0.5 * ((self._own_x @ self._penalty) * z**2).sum() / len(self._x)

    @torch.no_grad()
    def measure(self) -> None:
        """Derivative of the mean log-likelihood by the log size of each factor's loadings."""
        if self._seen:
            loadings = self.weight[:, : self._prior.n_factors]
            of_sum = -((self.d_output @ loadings) * self.u[:, : self._prior.n_factors]).sum(0)
            # The loss is a mean over the whole minibatch, with the modality's weight.
            self._slope = of_sum * (len(self._x) / (len(self.u) * self._in_loss))

    def observe_slope(self) -> None:
        if self._seen:
            self._prior.observe_slope(_numpy(self._slope))

    @property
    def _own_x(self) -> Tensor:
        """Counts of the cells that have the modality, as its prior sees them."""
        own = self._x if self._has is None else self._x[self._has]
        return own.sign() if self._prior.thresholded else own


def _numpy(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
