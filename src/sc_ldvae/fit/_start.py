"""A start from the data: intercepts, dispersions, and factors from a truncated SVD, in decoder and encoder alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae.counts import among_empty
from sc_ldvae.fit._svd import joint_svd, log_normalised, truncated_svd
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LinearDecoder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.counts import Cells
    from sc_ldvae.fit._svd import Svd
    from sc_ldvae.nn import LDVAE, Encoder, Grouped, Model

# A start needs no more cells than this, and the SVD would cost more than the fit.
MAX_CELLS = 20_000
_LATENT_LOG_VARIANCE = -2.0
_LIBRARY_LOG_VARIANCE = -4.0
# Of the largest; directions below, of which a modality knows nothing, have no part in a regression.
_LEAST_SINGULAR = 1e-3


@torch.no_grad()
def start_from_data(model: Model, cells: Cells) -> None:
    """Set the parameters of a fresh model from training cells.

    The encoder's hidden units start as pairs of opposite projections on the SVD's directions: the difference of a pair
    after ReLU is the projection itself, so the latent's mean starts as the scores that the decoder's loadings expect.
    What the reference draws at random and the data can't tell (the other hidden units) stays random.

    Several modalities share the scores of one SVD, which the encoder of each starts to tell from its own projections.
    """
    views = cells.views(model.widths)
    counts = [view.cells.source.rows(np.arange(len(view.places))).astype(np.float64) for view in views]
    libraries = [
        np.asarray(one.sum(1)).ravel() if view.has_library else np.ones(one.shape[0])
        for view, one in zip(model.views, counts, strict=True)
    ]
    if model.fuses:
        targets = _start_together(model, cells.n_obs, [view.places for view in views], counts, libraries)
    else:
        (view,), k = model.views, min(model.n_latent, min(counts[0].shape) - 2)
        svd = truncated_svd(counts[0], libraries[0], k, centred=view.has_library)
        targets = [_Targets(svd, svd.scores)]
    for view, own, library, target in zip(model.views, counts, libraries, targets, strict=True):
        _start_view(view, own, library, target, alone=not model.fuses)


class _Targets(NamedTuple):
    """What a modality starts from."""

    svd: Svd
    scores: NDArray[np.float64]
    """Of the cells that have it, n_obs x k."""


def _start_together(
    model: Model,
    n_obs: int,
    places: list[Positions],
    counts: list[sparse.csr_matrix],
    libraries: list[NDArray[np.float64]],
) -> list[_Targets]:
    present = np.zeros((n_obs, len(places)), dtype=bool)
    logs = []
    for i, (own, library, where) in enumerate(zip(counts, libraries, places, strict=True)):
        present[where, i] = True
        logs.append(among_empty(log_normalised(own, library), where, n_obs))
    k = min(model.n_latent, n_obs - 2, model.n_input - 2)
    found = joint_svd(logs, present, [view.has_library for view in model.views], k)
    return [_Targets(svd, svd.scores[where]) for svd, where in zip(found, places, strict=True)]


def _start_view(
    model: LDVAE, counts: sparse.csr_matrix, library: NDArray[np.float64], target: _Targets, *, alone: bool
) -> None:
    """Start from the counts of one modality, n_obs x n_vars, and its SVD."""
    totals = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1]) + 0.5
    mean = totals / (totals.sum() if model.has_library else counts.shape[0])
    likelihood = LIKELIHOODS[model.gene_likelihood]
    values = likelihood.start(counts, library)
    for name, part in model.named_parts():
        _start_part(part, values[name])
    _start_mean(model, likelihood.expression(mean, values), target.svd)

    seen = counts.log1p() if model.log_variational else counts
    _start_encoder(model.z_encoder, seen, target.svd.directions, target.scores, _LATENT_LOG_VARIANCE, alone=alone)
    if model.l_encoder is not None:
        everything = np.full((counts.shape[1], 1), counts.shape[1] ** -0.5)
        log_library = np.log(library)
        _start_encoder(model.l_encoder, seen, everything, log_library[:, None], _LIBRARY_LOG_VARIANCE)


def _start_mean(model: LDVAE, expression: Floats, svd: Svd) -> None:
    decoder, k = model.decoder, svd.effects.shape[1]
    # A softmax moves by about 1 / n_latent per unit of its input.
    scale = model.n_latent if model.composition else 1
    _copy(decoder.weight[:, :k], svd.effects * scale)
    if decoder.intercept is not None:
        _copy(decoder.intercept, np.log(expression))
    if decoder.gamma is not None:
        _copy(decoder.gamma, np.sqrt((svd.effects**2).sum(1) + 1e-3))


def _start_part(part: Grouped | LinearDecoder, values: Floats) -> None:
    """The same in all groups, or about the same in every cell."""
    if isinstance(part, LinearDecoder):
        part.slope.mul_(0.1)
        if part.intercept is not None:
            _copy(part.intercept, values)
    else:
        _copy(part.table, np.broadcast_to(values, tuple(part.table.shape)))


def _start_encoder(
    encoder: Encoder,
    seen: sparse.csr_matrix,
    directions: NDArray[np.float64],
    targets: NDArray[np.float64],
    log_variance: float,
    *,
    alone: bool = True,
) -> None:
    """Let the posterior's mean be the regression of `targets` on the projection of what is `seen` on `directions`.

    Of each on its own, or where the encoder is not `alone` of each on all, whose rest is the variance then.
    """
    k = min(directions.shape[1], encoder.mean.in_features // 2)
    weights = directions[:, :k].T
    for layer in encoder.hidden():
        _copy(layer.linear.weight[:k], weights)
        _copy(layer.linear.weight[k : 2 * k], -weights)
        # A pair's difference is the projection that the next layer's pair passes on.
        weights = np.eye(k, layer.linear.out_features) - np.eye(k, layer.linear.out_features, k)
    projections = seen @ directions[:, :k]
    spread = (projections - projections.mean(0)) / np.maximum(projections.std(0), np.finfo(float).tiny)
    centred = targets[:, :k] - targets[:, :k].mean(0)
    if alone:
        slopes = np.diag((spread * centred).mean(0))
    else:
        slopes = np.linalg.lstsq(spread, centred, rcond=_LEAST_SINGULAR)[0]
    encoder.mean.weight.zero_()
    _copy(encoder.mean.weight[:k], slopes.T @ weights)
    encoder.mean.bias.zero_()
    _copy(encoder.mean.bias[:k], targets[:, :k].mean(0))
    encoder.log_variance.weight.mul_(0.1)
    encoder.log_variance.bias.fill_(log_variance)
    if not alone:
        rest = np.log(np.maximum((centred - spread @ slopes).var(0), np.exp(log_variance)))
        _copy(encoder.log_variance.bias[:k], rest)


def _copy(target: torch.Tensor, values: Floats) -> None:
    target.copy_(torch.tensor(values, dtype=torch.float64, device="cpu"))
