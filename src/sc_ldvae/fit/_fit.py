"""One fit from counts to canonical factors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.counts import Cells, Counts
from sc_ldvae.fit._deviance import Decoded, explained_deviance
from sc_ldvae.fit._engine import Engine, engine_of
from sc_ldvae.fit._fold import fold_decoder, fold_encoder
from sc_ldvae.fit._loop import CHUNK, History, Schedule, evaluate, train
from sc_ldvae.fit._start import MAX_CELLS, proportions, start_from_data
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.record import Decoder

_CELLS_FOR_DEVIANCE = 2000
_DRAWS_OF_FINAL_ELBO = 10


@dataclass(frozen=True)
class Fitted:
    """A fit with canonical factors: centred, ordered by explained deviance, signed."""

    decoder: Decoder
    encoders: dict[str, dict[str, Floats]]
    library_prior: dict[str, Floats] | None
    latent: Floats
    variance: Floats
    library: Floats
    explained_deviance: Floats
    total_explained_deviance: float
    held_out: Mask
    history: History
    stop_reason: str
    elbo_held_out: float | None


def fit(
    counts: csr_matrix,
    annotations: Mapping[str, torch.Tensor],
    held_out: Mask,
    options: Mapping[str, Any],
    schedule: Schedule,
    *,
    device: torch.device,
    rng: np.random.Generator,
) -> Fitted:
    """Fit the model to checked counts.

    Parameters
    ----------
    counts
        Canonical float32 counts, n_obs x n_vars, of the genes to fit.
    annotations
        Further arguments of the model's forward, one row per cell; size factors with mean one.
    held_out
        Cells that no gradient sees, n_obs.
    options
        Arguments of the model's constructor.
    schedule
        Length, minibatch size, peak learning rate.
    device
        Where to compute.
    rng
        Source of everything random.
    """
    cells = Cells(Counts.from_csr(counts), **annotations)
    if cells.size_factor is not None:
        cells = replace(cells, size_factor=cells.size_factor * cells.counts.totals.mean())
    model = _started_model(counts, cells, held_out, options, rng)
    model, cells = model.to(device), cells.to(device)
    training, others = (torch.as_tensor(np.flatnonzero(mask), device=device) for mask in (~held_out, held_out))
    generator = torch.Generator(device).manual_seed(_seed(rng))
    with engine_of(model, cells, 1 / len(training)) as engine:
        history, stop_reason = train(model, engine, training, others, schedule, generator)
        elbo_held_out = evaluate(model, engine, others, _DRAWS_OF_FINAL_ELBO) if len(others) else None
        latent, variance, library = (part.double().cpu().numpy() for part in _posterior(model, engine, cells))

    decoder = fold_decoder(model).canonical(_level_blocks(model))
    decoded = Decoded(counts, latent, _covariates(model, cells), library, _theta_groups(model, cells))
    total, shares = explained_deviance(
        decoder,
        decoded.rows(_sample(np.flatnonzero(held_out if held_out.any() else ~held_out), _CELLS_FOR_DEVIANCE)),
        null_proportions=proportions(counts[~held_out]),
        latent_mean=latent.mean(0),
    )
    order, signs = _canonical_order(shares, decoder, model)
    heads = {"z": _reordered(fold_encoder(model.z_encoder), order, signs)}
    if model.l_encoder is not None:
        heads["library"] = fold_encoder(model.l_encoder)
    return Fitted(
        decoder=decoder.reordered(order, signs),
        encoders=heads,
        library_prior=_library_prior(model),
        latent=np.ascontiguousarray(latent[:, order] * signs),
        variance=np.ascontiguousarray(variance[:, order]),
        library=library,
        explained_deviance=shares[order],
        total_explained_deviance=total,
        held_out=held_out,
        history=history,
        stop_reason=stop_reason,
        elbo_held_out=elbo_held_out,
    )


def _posterior(model: LDVAE, engine: Engine, cells: Cells) -> tuple[torch.Tensor, ...]:
    """Latent (n_obs x n_latent), its variance before the softmax of 'ln', and library (n_obs) of all cells."""
    parts = []
    everyone = torch.arange(cells.counts.n_obs, device=cells.counts.values.device)
    for chunk in torch.split(everyone, CHUNK):
        mean, variance, log_library = engine.posterior(chunk)
        if log_library is not None:
            library = log_library.exp()
        else:
            library = (cells.counts.totals if cells.size_factor is None else cells.size_factor)[chunk]
        parts.append((model.transform(mean), variance, library))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _started_model(
    counts: csr_matrix, cells: Cells, held_out: Mask, options: Mapping[str, Any], rng: np.random.Generator
) -> LDVAE:
    model = LDVAE(counts.shape[1], **options, generator=torch.Generator().manual_seed(_seed(rng)))
    # Totals of all cells: a batch whose training cells are few still gets a sound prior.
    model.set_library_prior(cells.counts.totals, cells.batch_index)
    start_from_data(model, counts[_sample(np.flatnonzero(~held_out), MAX_CELLS)])
    return model


def _canonical_order(shares: Floats, decoder: Decoder, model: LDVAE) -> tuple[NDArray[np.intp], Floats]:
    """Largest explained deviance first; signs such that the heavier tail of the loadings is positive."""
    order = np.argsort(-shares, kind="stable")
    if model.latent_distribution == "ln":
        return order, np.ones(len(order))
    skewness = (decoder.log_proportion.loadings[:, order] ** 3).sum(0)
    return order, np.where(skewness < 0, -1.0, 1.0)


def _reordered(encoder: dict[str, Floats], order: NDArray[np.intp], signs: Floats) -> dict[str, Floats]:
    signs = signs.astype(np.float32)
    return encoder | {
        "mean_weight": encoder["mean_weight"][order] * signs[:, None],
        "mean_bias": encoder["mean_bias"][order] * signs,
        "log_variance_weight": encoder["log_variance_weight"][order],
        "log_variance_bias": encoder["log_variance_bias"][order],
    }


def _level_blocks(model: LDVAE) -> list[slice]:
    """Columns of the decoder's covariates that belong to one category each."""
    sizes = [n for n in (model.n_batch, *model.n_cats_per_cov) if n > 1]
    ends = np.cumsum(sizes, dtype=int)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _covariates(model: LDVAE, cells: Cells) -> Floats:
    covariates = model.covariates(cells.batch_index, cells.cat_covs, cells.cont_covs)
    return np.zeros((cells.counts.n_obs, 0)) if covariates is None else covariates.double().cpu().numpy()


def _theta_groups(model: LDVAE, cells: Cells) -> NDArray[np.int64]:
    group = model.theta_group(cells.batch_index, cells.labels)
    return np.zeros(cells.counts.n_obs, dtype=np.int64) if group is None else group.cpu().numpy()


def _library_prior(model: LDVAE) -> dict[str, Floats] | None:
    if model.use_observed_lib_size:
        return None
    moments = {"log_mean": model.library_log_means, "log_variance": model.library_log_vars}
    return {name: moment.cpu().numpy() for name, moment in moments.items()}


def _sample(cells: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Evenly spaced cells, all of them if they are few."""
    return cells[:: -(-len(cells) // at_most)]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
