"""The methods, each fitted to the training cells (obs['train']) of one AnnData under one clock."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import exchange
from benchmarks.clock import ClockWatcher
from benchmarks.counts import counts_of
from sc_ldvae import fit, inputs, record

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Training cells x 10, of ours x 20 with zeros where a factor vanished."""
    model: CountModel | None = None
    """The final model, of methods with a likelihood."""
    read: Callable[[torch.nn.Module], CountModel] | None = None
    """From the clock's module to a model."""


def ldvae(adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None) -> Fitted:
    """What `sc_ldvae.tl.ldvae` does, watched by the clock; the held-out cells choose the epoch."""
    clock.start()
    fit_ldvae(adata, clock, seed, epochs)
    clock.stop()
    model = exchange.from_record(adata.uns["ldvae"])
    return Fitted(adata.obsm["X_ldvae"][adata.obs["train"]], model, exchange.from_ldvae)


def fit_ldvae(adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None = None) -> None:
    """The call, in place; the clock runs already."""
    asked = inputs.Options()
    asked = asked._replace(schedule=replace(asked.schedule, max_epochs=epochs))
    inputs.check_object(adata)
    # The prepared files hold the chosen genes alone.
    mask, generator = inputs.gene_mask(adata, None), np.random.default_rng(seed)
    held_out = inputs.split(adata, "train", generator)
    request, annotations = inputs.request_of(adata, mask, asked)
    new = fit.fit(request, held_out, generator, ClockWatcher(clock))
    arguments = {**vars(asked.columns), **vars(asked.model), **vars(asked.schedule), "train_size": "train"}
    record.write_fit(adata, record.Keys.named(None), new.alone, annotations.asked(mask, arguments))


def linear_scvi(
    adata: ad.AnnData, clock: Clock, seed: int, epochs: int | None, recipe: dict[str, Any] | None = None
) -> Fitted:
    """``LinearSCVI(...).train()``; the clock runs during ``train`` only."""
    from scvi.model import LinearSCVI

    training = adata[adata.obs["train"]].copy()
    quiet(seed)
    LinearSCVI.setup_anndata(training)
    model = LinearSCVI(training)
    arguments = (recipe or {}) | ({} if epochs is None else {"max_epochs": epochs})
    callback = lightning_callback(clock)
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
    from glmpca.glmpca import glmpca as fit_glmpca

    counts = counts_of(adata[adata.obs["train"]])
    # It refuses genes that no training cell has.
    seen = counts[:, np.unique(counts.indices)].toarray().astype(np.float64)
    np.random.seed(seed)  # noqa: NPY002  the package draws from the global generator
    control = {"maxIter": epochs or GLMPCA_ITERATIONS, "eps": 1e-4}
    clock.start()
    result = fit_glmpca(seen.T, N_LATENT, ctl=control)
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


def lightning_callback(clock: Clock) -> Any:  # noqa: ANN401  lightning may be missing
    """What tells a clock of scvi-tools' epochs."""
    from lightning.pytorch.callbacks import Callback

    class Watch(Callback):
        def on_train_start(self, _trainer: Any, _plan: Any) -> None:  # noqa: ANN401
            clock.begin_training()

        def on_train_epoch_end(self, _trainer: Any, plan: Any) -> None:  # noqa: ANN401
            clock.round_done(len(clock.rounds) + 1, clock.now(), plan.module)

    return Watch()


def _log_normalised(adata: ad.AnnData) -> ad.AnnData:
    import scanpy as sc

    training = adata[adata.obs["train"]].copy()
    sc.pp.normalize_total(training)
    sc.pp.log1p(training)
    return training


def quiet(seed: int) -> None:
    """Let scvi-tools be seeded, and say nothing."""
    import scvi

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.ERROR
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
