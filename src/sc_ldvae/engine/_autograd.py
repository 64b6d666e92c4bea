"""The module's own forward on dense minibatches, on any device and for every likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae._tables import joined, parted
from sc_ldvae.counts import PRESENT
from sc_ldvae.engine._adam import BETAS, EPS, RATES
from sc_ldvae.engine._halves import Halves, Prepared
from sc_ldvae.engine._ranks import Ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sc_ldvae._typing import Arrays
    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.engine._elbo import Encoded
    from sc_ldvae.nn import Elbo, Model


class Autograd:
    """Scores."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def posterior(self, cells: Minibatch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Mean and variance of the normal variables; log library of each modality's cells, where it is latent."""
        present = cells.annotations.get(PRESENT)
        z, libraries = self._model.posterior(self._dense(cells), None if present is None else self._sent(present))
        return z.mean.cpu(), z.variance.cpu(), [None if one is None else one.mean[:, 0].cpu() for one in libraries]

    def encoded(self, cells: Minibatch) -> None:
        """Nothing: cells are encoded for each draw anew."""

    @torch.no_grad()
    def elbo(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Elbo:  # noqa: ARG002
        """Terms of the ELBO at one draw of each cell."""
        terms: Elbo = self._model(**self._arguments(cells), generator=generator)
        return terms.to("cpu")

    @torch.no_grad()
    def log_weights(self, cells: Minibatch, generator: torch.Generator, encoded: Encoded | None = None) -> Tensor:  # noqa: ARG002
        """Log importance weight of one draw of each cell."""
        return self._model.log_weights(**self._arguments(cells), generator=generator).cpu()

    def _arguments(self, cells: Minibatch) -> dict[str, Tensor]:
        return {"x": self._dense(cells)} | {name: self._sent(values) for name, values in cells.annotations.items()}

    def _dense(self, cells: Minibatch) -> Tensor:
        """The counts, made dense on the device: only nonzeros travel."""
        counts, data = cells.counts, self._sent(cells.counts.data)
        rows = torch.repeat_interleave(self._sent(np.diff(counts.indptr)), output_size=counts.nnz)
        return data.new_zeros(counts.shape).index_put_((rows, self._sent(counts.indices)), data)

    def _sent(self, values: NDArray[Any]) -> Tensor:
        """Values on the device. A GPU takes them while the CPU goes on, for which their memory has to be pinned."""
        tensor = torch.from_numpy(values)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)


class AutogradEngine(Autograd):
    """Trains with torch's Adam."""

    def __init__(
        self,
        model: Model,
        prior_weight: float,
        adaptive_priors: AdaptivePriors | None = None,
        ranks: Ranks | None = None,
        *,
        capturable: bool = False,
    ) -> None:
        super().__init__(model)
        self._prior_weight, self._adaptive_priors, self._ranks = prior_weight, adaptive_priors, ranks or Ranks()
        groups = [{"params": group, "rate": RATES[name]} for name, group in model.parameter_groups().items() if group]
        self._optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True, capturable=capturable)

    def step(self, cells: Minibatch, lr: float, kl_weight: float, generator: torch.Generator) -> Elbo:
        """One step; the terms before it."""
        priors = self._adaptive_priors
        if priors is not None and not priors.begin_step():
            priors = None
        self._set_rates(lr)
        halves, forward, backward = self._prepared(cells, kl_weight, generator, priors)
        forward()
        halves.observe()
        backward()
        halves.observe_slope()
        return halves.terms

    def _set_rates(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]

    def state(self) -> Arrays:
        """What steps depend on beside the model and its adaptive prior."""
        moments = {
            str(i): {name: value.cpu().numpy() for name, value in of_parameter.items()}
            for i, of_parameter in self._optimizer.state_dict()["state"].items()
        }
        return joined(moments)

    def load(self, state: Arrays) -> None:
        """Go on from what `state` has given, before the first step."""
        tables = parted(state).items()
        moments = {int(i): {name: torch.from_numpy(one) for name, one in table.items()} for i, table in tables}
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})

    def _prepared(
        self, cells: Minibatch, kl_weight: float, generator: torch.Generator, priors: AdaptivePriors | None
    ) -> Prepared:
        """The halves of a step, and what runs each."""
        fixed = self._model, self._optimizer, self._prior_weight, priors, self._ranks
        halves = Halves(*fixed, self._arguments(cells), kl_weight, generator)
        return Prepared(halves, halves.forward, halves.backward)
