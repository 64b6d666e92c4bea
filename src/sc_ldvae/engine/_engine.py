"""What computes: scores of minibatches, and steps of training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sc_ldvae.engine._autograd import Autograd, AutogradEngine
from sc_ldvae.engine._captured import CapturedEngine, can_be_captured, own_stream
from sc_ldvae.engine._fused import Fused, FusedEngine, can_be_fused
from sc_ldvae.engine._ranks import Ranks
from sc_ldvae.kernels import own_threads
from sc_ldvae.nn import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from sc_ldvae._typing import Arrays
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.engine._elbo import Encoded
    from sc_ldvae.nn import Elbo, Model


class Scorer(Protocol):
    """A model in evaluation mode, and what it says of cells; everything comes back on the CPU."""

    @property
    def device(self) -> torch.device:
        """Where the generators of its draws have to be."""

    def posterior(self, cells: Minibatch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Mean and variance of the normal variables, n_cells x n_latent; log library of each modality's cells.

        None where the library is observed.
        """

    def encoded(self, cells: Minibatch) -> Encoded | None:
        """What `elbo` and `log_weights` take, so that cells are encoded once for several draws; None for nothing."""

    def elbo(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Elbo:
        """Terms of the ELBO at one draw of each cell."""

    def log_weights(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Tensor:
        """Log importance weight of one draw of each cell."""


class Engine(Scorer, Protocol):
    """A model that is being trained; it scores in evaluation mode only."""

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step of Adam on minus the mean ELBO, in training mode; the terms before the step.

        The next step may put its own terms in their place.
        """

    def state(self) -> Arrays:
        """What steps depend on beside the model and its adaptive prior, as arrays by name."""

    def load(self, state: Arrays) -> None:
        """Go on from what `state` of an engine of the same kind has given."""


@contextmanager
def scorer_of(model: Model) -> Iterator[Scorer]:
    """What scores on the model's device: fused kernels on the CPU, where they know the likelihood, else autograd."""
    with undisturbed(next(model.parameters()).device):
        if can_be_fused(model):
            with own_threads():
                yield Fused(model)
        else:
            yield Autograd(model)


@contextmanager
def engine_of(
    model: Model, prior_weight: float, adaptive_priors: AdaptivePriors | None = None, ranks: Ranks | None = None
) -> Iterator[Engine]:
    """What trains there; the model's prior of the dispersions counts `prior_weight` times in the loss.

    A prior of the loadings learns with every step. Of several processes each has the same model, and steps with the
    mean of their gradients.
    """
    ranks = ranks or Ranks()
    device = next(model.parameters()).device
    with undisturbed(device):
        if can_be_fused(model):
            with own_threads():
                yield FusedEngine(model, prior_weight, adaptive_priors, ranks)
        elif can_be_captured(model) and ranks.n == 1:
            with own_stream(device):
                yield CapturedEngine(model, prior_weight, adaptive_priors)
        else:
            yield AutogradEngine(model, prior_weight, adaptive_priors, ranks)
