"""A start from the data: intercepts, dispersions, and factors from a truncated SVD, in decoder and encoder alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.fit._svd import truncated_svd
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LinearDecoder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from sc_ldvae._typing import Floats
    from sc_ldvae.fit._svd import Svd
    from sc_ldvae.nn import LDVAE, Encoder, Grouped

# A start needs no more cells than this, and the SVD would cost more than the fit.
MAX_CELLS = 20_000
_LATENT_LOG_VARIANCE = -2.0
_LIBRARY_LOG_VARIANCE = -4.0


@torch.no_grad()
def start_from_data(model: LDVAE, counts: sparse.csr_matrix) -> None:
    """Set the parameters of a fresh model from the training cells' counts, n_obs x n_vars.

    The encoder's hidden units start as pairs of opposite projections on the SVD's directions: the difference of a pair
    after ReLU is the projection itself, so the latent's mean starts as the scores that the decoder's loadings expect.
    What the reference draws at random and the data can't tell (the other hidden units) stays random.
    """
    counts = counts.astype(np.float64)
    library = np.asarray(counts.sum(1)).ravel() if model.has_library else np.ones(counts.shape[0])
    k = min(model.n_latent, min(counts.shape) - 2)
    svd = truncated_svd(counts, library, k, centred=model.has_library)
    totals = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1]) + 0.5
    mean = totals / (totals.sum() if model.has_library else counts.shape[0])
    for i, block in enumerate(model.blocks):
        likelihood = LIKELIHOODS[block.gene_likelihood]
        values = likelihood.start(counts[:, block.genes], library)
        mean[block.genes] = likelihood.expression(mean[block.genes], values)
        for name, part in model.parts_of(i):
            _start_part(part, values[name])
    _start_mean(model, mean, svd)

    seen = counts.log1p() if model.log_variational else counts
    _start_encoder(model.z_encoder, seen, svd.directions, svd.scores, _LATENT_LOG_VARIANCE)
    if model.l_encoder is not None:
        everything = np.full((counts.shape[1], 1), counts.shape[1] ** -0.5)
        log_library = np.log(library)
        _start_encoder(model.l_encoder, seen, everything, log_library[:, None], _LIBRARY_LOG_VARIANCE)


def _start_mean(model: LDVAE, expression: NDArray[np.float64], svd: Svd) -> None:
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
) -> None:
    """Let the posterior's mean be the regression of `targets` on the projection of what is `seen` on `directions`."""
    k = min(directions.shape[1], encoder.mean.in_features // 2)
    weights = directions[:, :k].T
    for layer in encoder.hidden():
        _copy(layer.linear.weight[:k], weights)
        _copy(layer.linear.weight[k : 2 * k], -weights)
        # A pair's difference is the projection that the next layer's pair passes on.
        weights = np.eye(k, layer.linear.out_features) - np.eye(k, layer.linear.out_features, k)
    projections = seen @ directions[:, :k]
    spread = (projections - projections.mean(0)) / np.maximum(projections.std(0), np.finfo(float).tiny)
    slopes = (spread * (targets[:, :k] - targets[:, :k].mean(0))).mean(0)
    encoder.mean.weight.zero_()
    _copy(encoder.mean.weight[:k], slopes[:, None] * weights)
    encoder.mean.bias.zero_()
    _copy(encoder.mean.bias[:k], targets[:, :k].mean(0))
    encoder.log_variance.weight.mul_(0.1)
    encoder.log_variance.bias.fill_(log_variance)


def _copy(target: torch.Tensor, values: Floats) -> None:
    target.copy_(torch.tensor(values, dtype=torch.float64, device="cpu"))
