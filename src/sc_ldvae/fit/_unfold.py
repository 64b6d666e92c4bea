"""From plain arrays back to a module, for whatever needs the model once it is fitted."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.nn import BATCH_NORM_EPS, LDVAE, JointLDVAE, LinearDecoder, undisturbed
from sc_ldvae.record import AffineMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from sc_ldvae._typing import Floats
    from sc_ldvae.nn import Encoder, Model
    from sc_ldvae.record import Folded


@undisturbed(torch.device("cpu"))
@torch.no_grad()
def unfolded(of_views: Sequence[Folded]) -> Model:
    """A module with these folded arrays in evaluation mode, on the CPU; its BatchNorms pass everything on.

    It can be of some modalities of a joint fit: then it is what the fit makes of cells that have no others.
    """
    views = [_unfolded(folded) for folded in of_views]
    return JointLDVAE(views).eval() if of_views[0].expert else views[0]


def _unfolded(folded: Folded) -> LDVAE:
    decoder, z_encoder = folded.decoder, folded.encoders["z"]
    options = replace(
        folded.options,
        n_latent=len(z_encoder["mean_bias"]),
        n_hidden=len(z_encoder["bias_0"]),
        n_layers_encoder=sum(name.startswith("weight_") for name in z_encoder),
        use_batch_norm=False,
        bias=True,
    )
    n_input, generator = len(decoder.log_proportion.intercept), torch.Generator("cpu").manual_seed(0)
    model = LDVAE(n_input, **asdict(options), **asdict(folded.levels), generator=generator).eval()
    _fill_encoder(model.z_encoder, z_encoder)
    if model.l_encoder is not None and folded.library_prior is not None:
        _fill_encoder(model.l_encoder, folded.encoders["library"])
        _copy(model.library_log_means, folded.library_prior["log_mean"])
        _copy(model.library_log_vars, folded.library_prior["log_variance"])
    _fill_decoder(model.decoder, decoder.log_proportion)
    for name, part in model.named_parts():
        values = decoder.parts[name]
        if isinstance(part, LinearDecoder) and isinstance(values, AffineMap):
            _fill_decoder(part, values)
        elif not isinstance(part, LinearDecoder) and not isinstance(values, AffineMap):
            _copy(part.table, values)
    return model


def _fill_decoder(decoder: LinearDecoder, affine: AffineMap) -> None:
    _copy(decoder.weight, np.hstack([affine.loadings, affine.covariate_effects]))
    _copy(decoder.bias, affine.intercept)


def _fill_encoder(encoder: Encoder, arrays: Mapping[str, Floats]) -> None:
    for i, layer in enumerate(encoder.hidden()):
        _fill(layer.linear, arrays[f"weight_{i}"], arrays[f"bias_{i}"])
        layer.norm.reset_parameters()
        _copy(layer.norm.running_var, np.full(len(arrays[f"bias_{i}"]), 1 - BATCH_NORM_EPS))
    for name in ("mean", "log_variance"):
        _fill(getattr(encoder, name), arrays[f"{name}_weight"], arrays[f"{name}_bias"])


def _fill(linear: nn.Linear, weight: Floats, bias: Floats) -> None:
    _copy(linear.weight, weight)
    _copy(linear.bias, bias)


def _copy(target: torch.Tensor | None, values: Floats | None) -> None:
    if target is not None:
        target.copy_(torch.tensor(np.asarray(values), dtype=torch.float64, device="cpu"))
