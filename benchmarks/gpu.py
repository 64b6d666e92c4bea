"""Steps and fits on a CUDA device: captured as graphs, kernel by kernel, and LinearSCVI on the same card."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

import sc_ldvae
from benchmarks import tables
from benchmarks.counts import counts_of
from benchmarks.data import simulated
from benchmarks.methods import N_LATENT
from benchmarks.step import KL_WEIGHT, LR, linear_scvi_step, started
from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.engine import AdaptivePrior, AdaptivePriors, AutogradEngine, engine_of
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from benchmarks.runs import Session

    Step = Callable[[NDArray[np.intp]], object]

SIZES = ((3_000, 2_000), (100_000, 2_000))
BATCH_SIZES = (128, 1_024, 4_096)
# A device works behind the back of the CPU: steps are timed together. The first ones are warm-up.
_IN_A_ROW, _WARM_UP = 48, 12
_REPEATS = 3


def gpu(session: Session, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Write the tables of milliseconds per step and of seconds per fit; without a device, say so."""
    if not torch.cuda.is_available():
        print("gpu is left out: torch finds no CUDA device.")
        return
    paths = [simulated(*size, session.out) for size in sizes]
    session.compile(paths[0])
    card = f"{torch.cuda.get_device_name()}. "
    steps = session.call("benchmarks.gpu:steps", path=str(paths[-1]), threads=session.threads)["rows"]
    notes = f"{card}Medians of {_REPEATS} times {_IN_A_ROW} steps in a row, minibatches gathered and sent among them."
    tables.write(session, "gpu_step", "One training step on a GPU", pd.DataFrame(steps), notes)
    fits = [
        {"data": path.stem, "device": device}
        | session.call("benchmarks.gpu:fitted", path=str(path), device=device, threads=session.threads)
        for path in paths
        for device in ("cuda", "cpu")
    ]
    notes = f"{card}Seconds of sc_ldvae.tl.ldvae with its defaults, twice in one process."
    table = pd.DataFrame(fits).drop(columns="process_seconds")
    tables.write(session, "gpu_fit", "A fit on a GPU and on the CPU beside it", table, notes)


def steps(path: str, threads: int) -> dict[str, list[dict[str, float]]]:
    """Medians in this process, for minibatches of each size."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    counts = counts_of(ad.read_h5ad(path))
    return {"rows": [_of_size(counts, size) for size in BATCH_SIZES]}


def fitted(path: str, device: str, threads: int) -> dict[str, float]:
    """Seconds of two fits in this process: the first one has the device and its libraries to wake."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata, seconds = ad.read_h5ad(path), []
    for _ in range(2):
        start = time.perf_counter()
        sc_ldvae.tl.ldvae(adata, device=device, progress=False)
        seconds.append(time.perf_counter() - start)
    elbo = float(adata.uns["ldvae"]["elbo_held_out"])
    return {"first call": seconds[0], "second call": seconds[1], "held-out ELBO": elbo}


def _of_size(counts: csr_matrix, batch_size: int) -> dict[str, float]:
    measured = {name: _milliseconds(step, counts.shape[0], batch_size) for name, step in _kinds(counts, batch_size)}
    return {
        "batch size": batch_size,
        **measured,
        "cells per second, captured": 1000 * batch_size / measured["captured"],
    }


def _kinds(counts: csr_matrix, batch_size: int) -> Iterator[tuple[str, Step]]:
    """One kind of step after the other, each on a model of its own."""
    device, weight, cells = torch.device("cuda"), 1 / counts.shape[0], Cells(InMemory(counts))
    kinds: dict[str, Callable[..., Any]] = {
        "captured": lambda model: engine_of(model, weight),
        "captured, with the adaptive prior": lambda model: engine_of(
            model, weight, AdaptivePriors([AdaptivePrior(LIKELIHOODS["nb"], counts.shape[0], N_LATENT)])
        ),
        "kernel by kernel": lambda model: nullcontext(AutogradEngine(model, weight)),
    }
    for name, engine_for in kinds.items():
        model = started(cells, counts[:4096], torch.Generator().manual_seed(0)).to(device).train()
        generator = torch.Generator(device).manual_seed(0)
        with engine_for(model) as engine:
            yield name, lambda chosen, e=engine, g=generator: e.step(cells.minibatch(chosen), LR, KL_WEIGHT, g)
    if find_spec("scvi") is not None:
        yield "LinearSCVI", linear_scvi_step(counts, batch_size, device)


def _milliseconds(step: Step, n_cells: int, batch_size: int) -> float:
    """Of one step among many."""
    rng, seconds = np.random.default_rng(0), []
    minibatches = [rng.choice(n_cells, batch_size, replace=False) for _ in range(_WARM_UP + _IN_A_ROW)]
    for chosen in minibatches[:_WARM_UP]:
        step(chosen)
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for chosen in minibatches[_WARM_UP:]:
            step(chosen)
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / _IN_A_ROW)
    return 1000 * median(seconds)
