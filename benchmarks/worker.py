"""One fit in a process of its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import torch

from benchmarks import machine
from benchmarks.clock import Clock
from benchmarks.counts import counts_of, megabytes
from benchmarks.evaluate import scores
from benchmarks.methods import METHODS, Fitted

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_WARM_UP_CELLS = 300
_CELLS_TO_CROSS_CHECK = 100
# The same draws along the curve and for the final model, so that the two can be compared.
_DRAWS, _IMPORTANCE_DRAWS = 10, 100


def fit(
    path: str, method: str, *, threads: int, seed: int = 0, epochs: int | None = None, every: int = 0
) -> dict[str, Any]:
    """Time a fit, then evaluate it.

    Parameters
    ----------
    path
        File that `benchmarks.data` prepared.
    method
        One of `benchmarks.methods`.
    threads
        Of torch; the environment has set the others.
    seed
        Of the method.
    epochs
        In place of the method's own number of epochs or iterations.
    every
        Evaluate the model of every so many epochs, and of all the first ones; 0: time and memory only.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path)
    # Compiles, imports and starts threads.
    METHODS[method](adata[:_WARM_UP_CELLS].copy(), Clock(), seed, 1)
    with TemporaryDirectory() as folder:
        clock = Clock(Path(folder) if every else None, every)
        machine.forget_peak()
        ready = machine.resident_megabytes()
        fitted = METHODS[method](adata, clock, seed, epochs)
        peak = machine.peak_megabytes()
        training = counts_of(adata[adata.obs["train"]])
        result = {
            "seconds": clock.seconds,
            "epoch_seconds": clock.epoch_seconds(),
            "n_epochs": clock.n_epochs,
            "peak_megabytes": peak,
            "ready_megabytes": ready,
            "counts_megabytes": megabytes(counts_of(adata)),
            "n_train": training.shape[0],
            "n_genes": training.shape[1],
            "n_nonzeros": int(training.nnz),
        }
        if every:
            result |= _quality(adata, fitted, clock)
    return result


def _quality(adata: ad.AnnData, fitted: Fitted, clock: Clock) -> dict[str, Any]:
    # Not at the top: what they load is no part of the fit's memory.
    from benchmarks import downstream
    from benchmarks.cross_check import cross_check

    result: dict[str, Any] = {"factors": int(fitted.latent.any(0).sum())}
    if "label" in adata.obs:
        labels = adata.obs["label"][adata.obs["train"]]
        result["label_accuracy"] = downstream.label_accuracy(fitted.latent, labels)
        result["cluster_agreement"] = downstream.cluster_agreement(fitted.latent, labels)
    if fitted.model is not None:
        held_out = counts_of(adata[~adata.obs["train"]])
        result |= scores(fitted.model, held_out, n_draws=_DRAWS, n_importance=_IMPORTANCE_DRAWS)
        few = held_out[:_CELLS_TO_CROSS_CHECK]
        # Our call keeps the best state, not the module's last one; scvi-tools' module is the model.
        module = clock.module if type(clock.module).__module__.startswith("scvi.") else None
        result["cross_check"] = cross_check(fitted.model, few, module)
        result["curve"] = _curve(fitted, clock, held_out)
    return result


def _curve(fitted: Fitted, clock: Clock, held_out: csr_matrix) -> list[dict[str, float]]:
    curve = []
    for epoch, seconds, path, module in clock.states:
        module.load_state_dict(torch.load(path, weights_only=True))
        model = fitted.read(module)
        elbo = scores(model, held_out, n_draws=_DRAWS)["elbo"]
        curve.append({"epoch": epoch, "seconds": seconds, "elbo": elbo if np.isfinite(elbo) else None})
    return curve
