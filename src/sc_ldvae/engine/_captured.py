"""Steps on a CUDA device: captured once as CUDA graphs, then replayed."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from sc_ldvae.engine._autograd import AutogradEngine
from sc_ldvae.engine._halves import Halves, Prepared
from sc_ldvae.kernels import TERMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sc_ldvae.counts import Minibatch
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.nn import Model

# Counts of a minibatch, zeros among them, up to which to start the kernels of a step takes longer than to run them.
_MOST = 2**23

# Streams to be used again: for each one that it has seen, cuBLAS keeps tens of megabytes.
_idle: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)

# Whose draws, how many cells, whether with the adaptive prior.
_Kind: TypeAlias = tuple[torch.Generator, int, bool]


def can_be_captured(model: Model) -> bool:
    """Whether nothing in a step waits for the device: other likelihoods may look at what they have computed."""
    on_cuda = next(model.parameters()).device.type == "cuda"
    # Of several modalities, how many cells of a minibatch have each is never twice the same.
    return on_cuda and not model.fuses and all(view.gene_likelihood in TERMS for view in model.views)


class CapturedEngine(AutogradEngine):
    """Trains with CUDA graphs, which start the hundreds of small kernels of a step at once.

    Minibatches have one of two sizes, and some steps have the adaptive prior: of each kind the first step is taken as
    it is, the second captured.
    """

    def __init__(self, model: Model, prior_weight: float, adaptive_priors: AdaptivePriors | None = None) -> None:
        super().__init__(model, prior_weight, adaptive_priors, capturable=True)
        for group in self._optimizer.param_groups:
            group["lr"] = torch.zeros((), dtype=torch.float32, device=self.device)
        self._kinds: dict[_Kind, Halves] = {}
        self._captured: dict[_Kind, Prepared] = {}
        self._pool: Any = None

    def _set_rates(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"].fill_(lr * group["rate"])

    def _prepared(
        self, cells: Minibatch, kl_weight: float, generator: torch.Generator, priors: AdaptivePriors | None
    ) -> Prepared:
        fresh = super()._prepared(cells, kl_weight, generator, priors)
        kind = generator, len(cells), priors is not None
        if fresh.halves.arguments["x"].numel() > _MOST:
            return fresh
        halves = self._kinds.setdefault(kind, fresh.halves)
        if halves is fresh.halves:
            return fresh
        for name, values in halves.arguments.items():
            values.copy_(fresh.halves.arguments[name])
        if kind not in self._captured:
            replays = [self._replay_of(half, generator) for half in (halves.forward, halves.backward)]
            self._captured[kind] = Prepared(halves, *replays)
        return self._captured[kind]

    def _replay_of(self, function: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        """What does again on the device what the function does there; it is not done yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        # Not `torch.cuda.graph`, which collects Python's garbage and gives the memory of others back.
        graph.capture_begin(self._pool, capture_error_mode="thread_local")
        try:
            function()
        finally:
            graph.capture_end()
        # One pool for all: a graph reads nothing there but what its own step wrote.
        self._pool = graph.pool()
        return graph.replay


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """A stream other than the default one, on which no graph can be captured, and that nobody else uses meanwhile."""
    outer = torch.cuda.current_stream(device)
    try:
        own = _idle[device].pop()
    except IndexError:
        own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    own.wait_stream(outer)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        outer.wait_stream(own)
        _idle[device].append(own)
