"""From a trained module to canonical factors: folded, centred, ordered by explained deviance, signed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.fit._deviance import Decoded, explained_deviance
from sc_ldvae.fit._engine import engine_of
from sc_ldvae.fit._errors import loadings_covariance
from sc_ldvae.fit._fold import fold_decoder, fold_encoder
from sc_ldvae.fit._scores import mean_elbo, posterior
from sc_ldvae.fit._start import proportions
from sc_ldvae.fit._unfold import unfolded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.counts import Cells
    from sc_ldvae.nn import LDVAE
    from sc_ldvae.record import Decoder

_CELLS_FOR_DEVIANCE = 2000
DRAWS = 10


@dataclass(frozen=True)
class Factors:
    """What is left of a model, and what it says of the cells of the fit."""

    decoder: Decoder
    loadings_covariance: Floats
    encoders: dict[str, dict[str, Floats]]
    library_prior: dict[str, Floats] | None
    latent: Floats
    variance: Floats
    library: Floats
    explained_deviance: Floats
    total_explained_deviance: float
    elbo_held_out: float | None


def canonical(model: LDVAE, counts: csr_matrix, cells: Cells, held_out: Mask, options: Mapping[str, Any]) -> Factors:
    """Canonical factors of a trained model, on the CPU.

    Parameters
    ----------
    model
        In evaluation mode, on any device.
    counts, cells
        All cells of the fit; `counts` are those of `cells`.
    held_out
        Cells that were not trained on, n_obs.
    options
        Arguments of the model's constructor.
    """
    decoder = canonical_decoder(model)
    encoders = {"z": fold_encoder(model.z_encoder)}
    if model.l_encoder is not None:
        encoders["library"] = fold_encoder(model.l_encoder)
    prior = _library_prior(model)

    stored = unfolded(decoder, encoders, prior, options)
    everyone, others = torch.arange(len(held_out)), torch.as_tensor(np.flatnonzero(held_out))
    decoded = decoded_cells(stored, counts, cells)
    total, shares = deviance_on_held_out(decoder, decoded, held_out)
    order, signs = _canonical_order(shares, decoder, model)
    decoder, encoders["z"] = decoder.reordered(order, signs), _reordered(encoders["z"], order, signs)

    # Once more, for what stands in the AnnData is to be, bit for bit, what its encoders give.
    stored = unfolded(decoder, encoders, prior, options)
    with engine_of(stored, cells) as engine:
        latent, variance, library = (part.numpy() for part in posterior(stored, engine, cells, everyone))
        elbo_held_out = mean_elbo(engine, others, DRAWS) if len(others) else None
    decoded = replace(decoded, latent=latent, library=library).rows(np.flatnonzero(~held_out))
    composition = model.latent_distribution == "ln"
    covariance = loadings_covariance(decoder, decoded, _level_blocks(model), composition=composition)
    return Factors(decoder, covariance, encoders, prior, latent, variance, library, shares[order], total, elbo_held_out)


def decoded_cells(model: LDVAE, counts: csr_matrix, cells: Cells) -> Decoded:
    """All cells at the posterior means of latent and library, on the model's device; `counts` are those of `cells`."""
    everyone = torch.arange(cells.counts.n_obs, device=cells.counts.values.device)
    with engine_of(model, cells) as engine:
        latent, _, library = (part.double().cpu().numpy() for part in posterior(model, engine, cells, everyone))
    return Decoded(counts, latent, _covariates(model, cells), library, _theta_groups(model, cells))


def canonical_decoder(model: LDVAE) -> Decoder:
    """The folded decoder, every constant that its distribution can't see taken out; factors as the model has them."""
    return fold_decoder(model).canonical(_level_blocks(model))


def deviance_on_held_out(decoder: Decoder, decoded: Decoded, held_out: Mask) -> tuple[float, Floats]:
    """Total and each factor's share of the explained deviance on some of the held-out cells.

    Where no cell or every cell is held out, that of all cells, beside the null of all cells.
    """
    every = np.ones_like(held_out)
    scored, others = (held_out, ~held_out) if 0 < held_out.sum() < len(held_out) else (every, every)
    return explained_deviance(
        decoder,
        decoded.rows(evenly(np.flatnonzero(scored), _CELLS_FOR_DEVIANCE)),
        null_proportions=proportions(decoded.counts[others]),
        latent_mean=decoded.latent.mean(0),
    )


def evenly(cells: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Evenly spaced cells, all of them if they are few."""
    return cells[:: -(-len(cells) // at_most)]


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
