"""The methods, each fitted to the training cells (obs['train']) of one AnnData under one clock."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import sc_ldvae
from benchmarks import exchange
from benchmarks.counts import counts_of
from sc_ldvae.fit import _loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad
    import torch

    from benchmarks.clock import Clock
    from benchmarks.count_model import CountModel

N_LATENT = 10
N_COMPONENTS = 50
TUTORIAL = {"max_epochs": 250, "plan_kwargs": {"lr": 5e-3}}
# Each takes seconds; until it converges by its own rule it would take minutes.
GLMPCA_ITERATIONS = 20


@dataclass(frozen=True)
class Fitted:
    """What a method leaves."""

    latent: np.ndarray
    """Training cells x 10."""
    model: CountModel | None = None
    """The final model, of methods with a likelihood."""
    read: Callable[[torch.nn.Module], CountModel] | None = None
    """From the clock's module to a model."""


def ldvae(adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None) -> Fitted:
    """Our call with its defaults; the held-out cells choose the epoch, as always."""
    with _watched(clock):
        clock.start()
        sc_ldvae.tl.ldvae(adata, max_epochs=epochs, train_size="train", rng=seed, progress=False)
        clock.stop()
    model = exchange.from_record(adata.uns["ldvae"])
    return Fitted(adata.obsm["X_ldvae"][adata.obs["train"]], model, exchange.from_ldvae)


def linear_scvi(
    adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None, recipe: dict[str, Any] | None = None
) -> Fitted:
    """``LinearSCVI(...).train()``; the clock runs during ``train`` only."""
    from scvi.model import LinearSCVI

    training = adata[adata.obs["train"]].copy()
    _quiet(seed)
    LinearSCVI.setup_anndata(training)
    model = LinearSCVI(training)
    arguments = (recipe or {}) | ({} if epochs is None else {"max_epochs": epochs})
    callback = _lightning_callback(clock)
    clock.start()
    # The held-out cells are not in this object, so all that it sees are training cells.
    model.train(train_size=1.0, accelerator="cpu", enable_progress_bar=False, callbacks=[callback], **arguments)
    clock.stop()
    return Fitted(model.get_latent_representation(), exchange.from_linear_scvi(model.module), exchange.from_linear_scvi)


def pca(adata: ad.AnnData, clock: Clock, seed: int, _: int | None) -> Fitted:
    """``sc.pp.pca`` of log-normalised counts; the clock runs during ``sc.pp.pca`` only."""
    import scanpy as sc

    training = _log_normalised(adata)
    n_comps = min(N_COMPONENTS, min(training.shape) - 1)
    clock.start()
    sc.pp.pca(training, n_comps=n_comps, random_state=seed)
    clock.stop()
    return Fitted(training.obsm["X_pca"][:, :N_LATENT])


def nmf(adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None) -> Fitted:
    """Non-negative matrix factorisation of log-normalised counts, scikit-learn's defaults."""
    from sklearn.decomposition import NMF

    training = _log_normalised(adata)
    limit = {} if epochs is None else {"max_iter": epochs}
    clock.start()
    latent = NMF(N_LATENT, random_state=seed, **limit).fit_transform(training.X)
    clock.stop()
    return Fitted(latent)


def glmpca(adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None) -> Fitted:
    """GLM-PCA (Townes et al. 2019), Poisson, a few iterations only."""
    from glmpca.glmpca import glmpca as fit

    counts = counts_of(adata[adata.obs["train"]])
    # It refuses genes that no training cell has.
    seen = counts[:, np.unique(counts.indices)].toarray().astype(np.float64)
    np.random.seed(seed)  # noqa: NPY002  the package draws from the global generator
    control = {"maxIter": epochs or GLMPCA_ITERATIONS, "eps": 1e-4}
    clock.start()
    result = fit(seen.T, N_LATENT, ctl=control)
    clock.stop()
    return Fitted(result["factors"])


METHODS: dict[str, Callable[..., Fitted]] = {
    "ldvae": ldvae,
    "linear_scvi": linear_scvi,
    "linear_scvi_tutorial": partial(linear_scvi, recipe=TUTORIAL),
    "pca": pca,
    "nmf": nmf,
    "glmpca": glmpca,
}
NAMES = {
    "ldvae": "sc_ldvae",
    "linear_scvi": "LinearSCVI",
    "linear_scvi_tutorial": "LinearSCVI (tutorial)",
    "pca": "sc.pp.pca",
    "nmf": "NMF",
    "glmpca": f"GLM-PCA ({GLMPCA_ITERATIONS} iterations)",
}


@contextmanager
def _watched(clock: Clock) -> Iterator[None]:
    """Tell the clock of every epoch of our loop: it evaluates the held-out cells once after each."""
    evaluate = _loop.evaluate

    def watched(module: torch.nn.Module, *arguments: Any) -> float:  # noqa: ANN401  whatever the loop passes
        trained = clock.now()
        value = evaluate(module, *arguments)
        clock.epoch_done(trained, module)
        return value

    _loop.evaluate = watched
    try:
        yield
    finally:
        _loop.evaluate = evaluate


def _lightning_callback(clock: Clock) -> Any:  # noqa: ANN401  lightning may be missing
    from lightning.pytorch.callbacks import Callback

    class Watch(Callback):
        def on_train_epoch_end(self, _trainer: Any, plan: Any) -> None:  # noqa: ANN401
            clock.epoch_done(clock.now(), plan.module)

    return Watch()


def _log_normalised(adata: ad.AnnData) -> ad.AnnData:
    import scanpy as sc

    training = adata[adata.obs["train"]].copy()
    sc.pp.normalize_total(training)
    sc.pp.log1p(training)
    return training


def _quiet(seed: int) -> None:
    import scvi

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.ERROR
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
