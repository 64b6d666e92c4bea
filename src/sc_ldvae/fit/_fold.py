"""From a fitted module to plain arrays: the decoder as affine maps, the encoders with BatchNorm folded in."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import fuse_linear_bn_eval

from sc_ldvae.record import AffineMap, Decoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sc_ldvae.nn import LDVAE
    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.nn._encoder import Encoder


@torch.no_grad()
def fold_decoder(model: LDVAE) -> Decoder:
    """The decoder in double precision, factors as the module has them."""
    exact = deepcopy(model).double()
    log_theta = None if exact.log_theta is None else _numpy(exact.log_theta)
    return Decoder(
        log_proportion=_affine(exact.decoder, model.n_latent),
        log_theta=log_theta if exact.theta_decoder is None else _affine(exact.theta_decoder, model.n_latent),
        zero_inflation=None if exact.zi_decoder is None else _affine(exact.zi_decoder, model.n_latent),
    )


@torch.no_grad()
def fold_encoder(encoder: Encoder) -> dict[str, NDArray[np.float32]]:
    """Weights of an encoder that has linear maps and ReLU only.

    ``h = relu(weight_i @ h + bias_i)`` for each layer i, starting from the (log1p) counts, then
    ``mean = mean_weight @ h + mean_bias`` and ``variance = exp(log_variance_weight @ h + log_variance_bias) + 1e-4``.
    """
    exact = deepcopy(encoder).double().eval()
    folded: dict[str, Tensor] = {}
    for i, layer in enumerate(exact.hidden()):
        fused = fuse_linear_bn_eval(layer.linear, layer.norm)
        folded |= {f"weight_{i}": fused.weight, f"bias_{i}": fused.bias}
    for name in ("mean", "log_variance"):
        head: nn.Linear = getattr(exact, name)
        folded |= {f"{name}_weight": head.weight, f"{name}_bias": head.bias}
    return {key: value.float().cpu().numpy() for key, value in folded.items()}


def _affine(decoder: LinearDecoder, n_latent: int) -> AffineMap:
    weight, bias = decoder.folded()
    return AffineMap(_numpy(weight[:, :n_latent]), _numpy(bias), _numpy(weight[:, n_latent:]))


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy()
