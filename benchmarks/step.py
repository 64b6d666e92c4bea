"""One training step: ours, LinearSCVI's, and the floor of any step, interleaved in one process."""

from __future__ import annotations

import time
import warnings
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from benchmarks import tables
from benchmarks.clock import Clock
from benchmarks.counts import counts_of
from benchmarks.data import prepared
from benchmarks.methods import METHODS, N_LATENT
from sc_ldvae.counts import Cells, InMemory, n_minibatches
from sc_ldvae.engine import AdaptivePrior, AdaptivePriors, engine_of
from sc_ldvae.fit import start_from_data
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from benchmarks.runs import Session

    # A step on a minibatch, given by the positions of its cells.
    Positions = NDArray[np.intp]
    Step = Callable[[Positions], object]

NAMES_OF_DATA = ("pbmc3k", "pbmc10k_1000", "pbmc10k_4000")
BATCH_SIZE = 128
LR, KL_WEIGHT = 1e-3, 0.5
# Steps in a row, so that each kind finds its own data in the caches as it does in training; the first one is dropped.
# Of the others the mean is taken, for one of four has the adaptive prior.
_IN_A_ROW = 9
_WARM_UP_ROUNDS = 2
_FLOOR = ("exp", "log", "nonzeros", "Adam")


def step(session: Session, names: Sequence[str] = NAMES_OF_DATA, rounds: int = 40) -> None:
    """Write the table of milliseconds per step."""
    rows = []
    for name in names:
        path = prepared(name, session.data, session.out)
        if path is not None:
            request = {"path": str(path), "rounds": rounds, "threads": session.threads}
            result = session.call("benchmarks.step:measure", **request)
            rows.append({"data": name} | {key: value for key, value in result.items() if key != "process_seconds"})
    if rows:
        notes = (
            f"Milliseconds, medians of {rounds} rounds, each the mean of {_IN_A_ROW - 1} steps of each kind in turn, "
            f"{BATCH_SIZE} cells. LinearSCVI: module and Adam with the minibatch at hand; its epoch: seconds of an "
            "epoch of train() over its steps, ours the same. The floor: torch's exp and log of cells x genes numbers "
            "into memory at hand, a gather, product and sum over the minibatch's nonzeros, and a fused Adam step over "
            "one flat buffer of our model's parameters."
        )
        tables.write(session, "step", "One training step", pd.DataFrame(rows), notes)


def measure(path: str, rounds: int, threads: int) -> dict[str, float]:
    """Medians in milliseconds, in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    counts = counts_of(adata[adata.obs["train"]])
    generator = torch.Generator().manual_seed(0)
    cells = Cells(InMemory(counts))
    model, selecting = (started(cells, counts, generator) for _ in range(2))
    prior = AdaptivePriors([AdaptivePrior(LIKELIHOODS["nb"], counts.shape[0], N_LATENT)])
    floor = _floor(counts, sum(parameter.numel() for parameter in model.parameters()))
    weight = 1 / counts.shape[0]
    with engine_of(model, weight) as engine, engine_of(selecting, weight, prior) as with_prior:
        steps: dict[str, Step] = {
            # Training gathers its minibatches, too.
            "ours": lambda chosen: engine.step(cells.minibatch(chosen), LR, KL_WEIGHT, generator),
            "with prior": lambda chosen: with_prior.step(cells.minibatch(chosen), LR, KL_WEIGHT, generator),
            "LinearSCVI": linear_scvi_step(counts),
        } | floor
        medians = {
            name: 1000 * median(seconds) for name, seconds in _interleaved(steps, counts.shape[0], rounds).items()
        }
    total = sum(medians[name] for name in _FLOOR)
    return {
        "genes": counts.shape[1],
        "ours": medians["ours"],
        "with the adaptive prior": medians["with prior"],
        "LinearSCVI": medians["LinearSCVI"],
        "our epoch / steps": _of_epoch("ldvae", adata, n_minibatches(counts.shape[0], BATCH_SIZE)),
        "LinearSCVI's epoch / steps": _of_epoch("linear_scvi", adata, -(-counts.shape[0] // BATCH_SIZE)),
        **{f"floor: {name}": medians[name] for name in _FLOOR},
        "floor": total,
        "ours / floor": medians["ours"] / total,
        "LinearSCVI / ours": medians["LinearSCVI"] / medians["ours"],
    }


def started(cells: Cells, counts: csr_matrix, generator: torch.Generator) -> LDVAE:
    """A model of the cells that begins as fits do, from these counts."""
    model = LDVAE(counts.shape[1], n_latent=N_LATENT, generator=generator)
    model.set_library_prior(torch.from_numpy(cells.source.totals).float())
    start_from_data(model, Cells(InMemory(counts)))
    return model


def _interleaved(steps: dict[str, Step], n_cells: int, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    rng = np.random.default_rng(0)
    for i in range(_WARM_UP_ROUNDS + rounds):
        minibatches = [rng.permutation(n_cells)[:BATCH_SIZE] for _ in range(_IN_A_ROW)]
        for name, one in steps.items():
            in_a_row = [_seconds_of(one, chosen) for chosen in minibatches]
            if i >= _WARM_UP_ROUNDS:
                seconds[name].append(mean(in_a_row[1:]))
    return seconds


def _seconds_of(one: Step, chosen: Positions) -> float:
    start = time.perf_counter()
    one(chosen)
    return time.perf_counter() - start


def linear_scvi_step(counts: csr_matrix, batch_size: int = BATCH_SIZE, device: torch.device | None = None) -> Step:
    """Module and optimiser as the training plan of scvi-tools has them, on a minibatch that is there already."""
    from scvi.module import LDVAE as ScviModule  # noqa: N811  ours has the same name

    library = np.log(np.asarray(counts.sum(1)))
    moments = {"library_log_means": library.mean(0)[None], "library_log_vars": library.var(0)[None]}
    module = ScviModule(counts.shape[1], n_batch=1, **moments).to(device).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, eps=0.01, weight_decay=1e-6)
    x = torch.tensor(counts[:batch_size].toarray(), device=device)
    column = torch.zeros(len(x), 1, dtype=torch.int64, device=device)
    tensors = {"X": x, "batch": column, "labels": column}

    def one(_: Positions) -> None:
        _, _, loss = module(tensors, loss_kwargs={"kl_weight": KL_WEIGHT})
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()

    return one


@torch.no_grad()
def _floor(counts: csr_matrix, n_parameters: int) -> dict[str, Step]:
    minibatch = counts[:BATCH_SIZE]
    values, genes = torch.tensor(minibatch.data), torch.tensor(minibatch.indices, dtype=torch.int64)
    per_gene = torch.rand(counts.shape[1])
    tile, target = torch.rand(minibatch.shape) + 0.5, torch.empty(minibatch.shape)
    flat = torch.zeros(n_parameters, requires_grad=True)
    flat.grad = torch.full((n_parameters,), 1e-3)
    adam = torch.optim.Adam([flat], lr=LR, fused=True)
    return {
        "exp": lambda _: torch.exp(tile, out=target),
        "log": lambda _: torch.log(tile, out=target),
        "nonzeros": lambda _: (per_gene[genes] * values).sum(),
        "Adam": lambda _: adam.step(),
    }


def _of_epoch(method: str, adata: ad.AnnData, n_steps: int) -> float:
    clock: Any = Clock()
    METHODS[method](adata, clock, 0, 3)
    return 1000 * median(clock.epoch_seconds()) / n_steps
