"""From a fitted module to plain arrays: the decoder as affine maps, the encoders with BatchNorm folded in."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import fuse_linear_bn_eval

from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LinearDecoder
from sc_ldvae.record import AffineMap, Decoder, Folded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sc_ldvae._options import Levels, ModelOptions
    from sc_ldvae._typing import Floats
    from sc_ldvae.nn import LDVAE, Encoder, Model


def folded(model: Model, options: ModelOptions, levels: Levels) -> list[Folded]:
    """The whole model, one for each modality: decoders canonical, factors as the module has them."""
    return [
        _folded(view, options.of_modality(view.gene_likelihood, view.dispersion), levels, expert=model.fuses)
        for view in model.views
    ]


def _folded(model: LDVAE, options: ModelOptions, levels: Levels, *, expert: bool) -> Folded:
    encoders = {"z": fold_encoder(model.z_encoder)}
    if model.l_encoder is not None:
        encoders["library"] = fold_encoder(model.l_encoder)
    return Folded(canonical_decoder(model), encoders, _library_prior(model), options, levels, expert=expert)


def canonical_decoder(model: LDVAE) -> Decoder:
    """The folded decoder, every constant that its distribution can't see taken out; factors as the model has them."""
    return fold_decoder(model).canonical(level_blocks(model))


@torch.no_grad()
def fold_decoder(model: LDVAE) -> Decoder:
    """The decoder in double precision, factors as the module has them."""
    exact = deepcopy(model).double()
    parts = {
        name: _affine(part, model.n_latent) if isinstance(part, LinearDecoder) else _numpy(part.table)
        for name, part in exact.named_parts()
    }
    return Decoder(_affine(exact.decoder, model.n_latent), parts, LIKELIHOODS[model.gene_likelihood])


@torch.no_grad()
def fold_encoder(encoder: Encoder) -> dict[str, NDArray[np.float32]]:
    """Weights of an encoder that has linear maps and ReLU only.

    ``h = relu(weight_i @ h + bias_i)`` for each layer i, starting from the (log1p) counts, then
    ``mean = mean_weight @ h + mean_bias`` and ``variance = exp(log_variance_weight @ h + log_variance_bias) + 1e-4``.
    """
    exact = deepcopy(encoder).double().eval()
    arrays: dict[str, Tensor] = {}
    for i, layer in enumerate(exact.hidden()):
        fused = fuse_linear_bn_eval(layer.linear, layer.norm)
        arrays |= {f"weight_{i}": fused.weight, f"bias_{i}": fused.bias}
    for name in ("mean", "log_variance"):
        head: nn.Linear = getattr(exact, name)
        arrays |= {f"{name}_weight": head.weight, f"{name}_bias": head.bias}
    return {key: value.float().cpu().numpy() for key, value in arrays.items()}


def level_blocks(model: LDVAE) -> list[slice]:
    """Columns of the decoder's covariates that belong to one category each."""
    sizes = [n for n in (model.n_batch, *model.n_cats_per_cov) if n > 1]
    ends = np.cumsum(sizes, dtype=int)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _library_prior(model: LDVAE) -> dict[str, Floats] | None:
    if model.use_observed_lib_size:
        return None
    moments = {"log_mean": model.library_log_means, "log_variance": model.library_log_vars}
    return {name: moment.cpu().numpy() for name, moment in moments.items()}


def _affine(decoder: LinearDecoder, n_latent: int) -> AffineMap:
    weight, bias = decoder.folded()
    return AffineMap(_numpy(weight[:, :n_latent]), _numpy(bias), _numpy(weight[:, n_latent:]))


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy()
