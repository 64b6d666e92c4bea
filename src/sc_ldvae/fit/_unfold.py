"""From plain arrays back to a module, for whatever needs the model once it is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.nn import LDVAE
from sc_ldvae.nn._encoder import BATCH_NORM_EPS
from sc_ldvae.record import AffineMap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from sc_ldvae._typing import Floats
    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.nn._encoder import Encoder
    from sc_ldvae.record import Decoder


@torch.no_grad()
def unfolded(
    decoder: Decoder,
    encoders: Mapping[str, Mapping[str, Floats]],
    library_prior: Mapping[str, Floats] | None,
    options: Mapping[str, Any],
) -> LDVAE:
    """A module with these folded arrays in evaluation mode, on the CPU; its BatchNorms pass everything on.

    Parameters
    ----------
    decoder, encoders, library_prior
        The arrays as the record keeps them.
    options
        Arguments of the constructor that the arrays do not tell.
    """
    z_encoder = encoders["z"]
    sizes = {
        "n_input": len(decoder.log_proportion.intercept),
        "n_latent": len(z_encoder["mean_bias"]),
        "n_hidden": len(z_encoder["bias_0"]),
        "n_layers_encoder": sum(name.startswith("weight_") for name in z_encoder),
    }
    generator = torch.Generator().manual_seed(0)
    model = LDVAE(**{**options, **sizes, "use_batch_norm": False, "bias": True}, generator=generator).eval()
    _fill_encoder(model.z_encoder, z_encoder)
    if model.l_encoder is not None and library_prior is not None:
        _fill_encoder(model.l_encoder, encoders["library"])
        _copy(model.library_log_means, library_prior["log_mean"])
        _copy(model.library_log_vars, library_prior["log_variance"])
    for part, affine in (
        (model.decoder, decoder.log_proportion),
        (model.theta_decoder, decoder.log_theta),
        (model.zi_decoder, decoder.zero_inflation),
    ):
        if part is not None and isinstance(affine, AffineMap):
            _fill_decoder(part, affine)
    if model.log_theta is not None and not isinstance(decoder.log_theta, AffineMap):
        _copy(model.log_theta, decoder.log_theta)
    return model


def _fill_decoder(decoder: LinearDecoder, affine: AffineMap) -> None:
    _copy(decoder.weight, np.hstack([affine.loadings, affine.covariate_effects]))
    _copy(decoder.bias, affine.intercept)


def _fill_encoder(encoder: Encoder, folded: Mapping[str, Floats]) -> None:
    for i, layer in enumerate(encoder.hidden()):
        _fill(layer.linear, folded[f"weight_{i}"], folded[f"bias_{i}"])
        layer.norm.reset_parameters()
        _copy(layer.norm.running_var, np.full(len(folded[f"bias_{i}"]), 1 - BATCH_NORM_EPS))
    for name in ("mean", "log_variance"):
        _fill(getattr(encoder, name), folded[f"{name}_weight"], folded[f"{name}_bias"])


def _fill(linear: nn.Linear, weight: Floats, bias: Floats) -> None:
    _copy(linear.weight, weight)
    _copy(linear.bias, bias)


def _copy(target: torch.Tensor | None, values: Floats | None) -> None:
    if target is not None:
        target.copy_(torch.as_tensor(np.array(values)))
