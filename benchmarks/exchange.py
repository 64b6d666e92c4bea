"""The same model in three shapes: plain arrays, our module or record, the module of scvi-tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.count_model import Affine, CountModel, Encoder
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scvi.module import LDVAE as ScviModule  # noqa: N811  ours has the same name


def from_record(record: Mapping[str, Any]) -> CountModel:
    """The model that ``uns['ldvae']`` holds."""
    decoder, prior = record["decoder"], record["library_prior"]
    return CountModel(
        _encoder_of_record(record["encoder"]["z"]),
        _encoder_of_record(record["encoder"]["library"]),
        (float(prior["log_mean"][0]), float(prior["log_variance"][0])),
        Affine(_double(decoder["loadings"]), _double(decoder["intercept"])),
        _double(decoder["log_theta"][0]),
    )


@torch.no_grad()
def from_ldvae(module: LDVAE) -> CountModel:
    """The model that our module holds."""
    weight, bias = module.decoder.folded()
    return CountModel(
        _encoder(*_parts_of_ours(module.z_encoder)),
        _encoder(*_parts_of_ours(module.l_encoder)),
        (float(module.library_log_means[0]), float(module.library_log_vars[0])),
        Affine(_double(weight), _double(bias)),
        _double(_log_theta(module)),
    )


@torch.no_grad()
def from_linear_scvi(module: ScviModule) -> CountModel:
    """The model that the module of scvi-tools holds. Its library is latent, as ours, unless it was told otherwise."""
    return CountModel(
        _encoder(*_parts_of_scvi(module.z_encoder)),
        _encoder(*_parts_of_scvi(module.l_encoder)),
        (float(module.library_log_means[0, 0]), float(module.library_log_vars[0, 0])),
        _folded(*_decoder_of_scvi(module)),
        _double(module.px_r),
    )


@torch.no_grad()
def to_ldvae(model: CountModel) -> LDVAE:
    """Our module with these weights, in evaluation mode."""
    module = LDVAE(**_sizes(model), use_batch_norm=False, bias=True).eval()
    for parts, encoder in (
        (_parts_of_ours(module.z_encoder), model.z_encoder),
        (_parts_of_ours(module.l_encoder), model.library_encoder),
    ):
        _fill_encoder(*parts, encoder)
    _copy(module.decoder.weight, model.decoder.weight)
    _copy(module.decoder.bias, model.decoder.bias)
    _copy(_log_theta(module), model.log_theta)
    module.library_log_means[0], module.library_log_vars[0] = model.library_prior
    return module


@torch.no_grad()
def to_linear_scvi(model: CountModel) -> ScviModule:
    """The module of scvi-tools with these weights, in evaluation mode."""
    from scvi.module import LDVAE as ScviModule  # noqa: N811  ours has the same name

    means, variances = (np.full((1, 1), moment) for moment in model.library_prior)
    module = ScviModule(**_sizes(model), n_batch=1, library_log_means=means, library_log_vars=variances).eval()
    for parts, encoder in (
        (_parts_of_scvi(module.z_encoder), model.z_encoder),
        (_parts_of_scvi(module.l_encoder), model.library_encoder),
    ):
        _fill_encoder(*parts, encoder)
    linear, norm = _decoder_of_scvi(module)
    _copy(linear.weight, model.decoder.weight)
    # The linear map has no bias, so BatchNorm's own shift is the intercept.
    _neutralise(norm)
    _copy(norm.bias, model.decoder.bias)
    _copy(module.px_r, model.log_theta)
    return module


_Parts = tuple[list[tuple[nn.Linear, nn.BatchNorm1d]], nn.Linear, nn.Linear]


def _parts_of_ours(encoder: Any) -> _Parts:  # noqa: ANN401  the class is private
    return [(layer.linear, layer.norm) for layer in encoder.hidden()], encoder.mean, encoder.log_variance


def _log_theta(module: LDVAE) -> torch.Tensor:
    """Of its one group of cells, n_genes."""
    return dict(module.named_parts())["log_theta"].table[0]


def _parts_of_scvi(encoder: Any) -> _Parts:  # noqa: ANN401  scvi-tools may be missing
    hidden = [(layer[0], layer[1]) for layer in encoder.encoder.fc_layers]
    return hidden, encoder.mean_encoder, encoder.var_encoder


def _decoder_of_scvi(module: ScviModule) -> tuple[nn.Linear, nn.BatchNorm1d]:
    layer = module.decoder.factor_regressor.fc_layers[0]
    return layer[0], layer[1]


def _encoder_of_record(folded: Mapping[str, Any]) -> Encoder:
    def affine(prefix: str, suffix: str = "") -> Affine:
        return Affine(_double(folded[f"{prefix}weight{suffix}"]), _double(folded[f"{prefix}bias{suffix}"]))

    n_layers = sum(key.startswith("weight_") for key in folded)
    hidden = tuple(affine("", f"_{i}") for i in range(n_layers))
    return Encoder(hidden, affine("mean_"), affine("log_variance_"))


def _encoder(hidden: list[tuple[nn.Linear, nn.BatchNorm1d]], mean: nn.Linear, log_variance: nn.Linear) -> Encoder:
    heads = (Affine(_double(head.weight), _double(head.bias)) for head in (mean, log_variance))
    return Encoder(tuple(_folded(linear, norm) for linear, norm in hidden), *heads)


def _folded(linear: nn.Linear, norm: nn.BatchNorm1d) -> Affine:
    scale = _double(norm.weight) / np.sqrt(_double(norm.running_var) + norm.eps)
    bias = 0.0 if linear.bias is None else _double(linear.bias)
    return Affine(
        _double(linear.weight) * scale[:, None], _double(norm.bias) + scale * (bias - _double(norm.running_mean))
    )


def _fill_encoder(
    hidden: list[tuple[nn.Linear, nn.BatchNorm1d]], mean: nn.Linear, log_variance: nn.Linear, encoder: Encoder
) -> None:
    for (linear, norm), layer in zip(hidden, encoder.hidden, strict=True):
        _fill(linear, layer)
        _neutralise(norm)
    _fill(mean, encoder.mean)
    _fill(log_variance, encoder.log_variance)


def _fill(linear: nn.Linear, affine: Affine) -> None:
    _copy(linear.weight, affine.weight)
    _copy(linear.bias, affine.bias)


def _neutralise(norm: nn.BatchNorm1d) -> None:
    """Let BatchNorm in evaluation mode pass everything on unchanged."""
    norm.reset_parameters()
    norm.weight.fill_((1 + norm.eps) ** 0.5)


def _sizes(model: CountModel) -> dict[str, int]:
    (n_genes, n_latent), layers = model.decoder.weight.shape, model.z_encoder.hidden
    return {
        "n_input": n_genes,
        "n_latent": n_latent,
        "n_hidden": len(layers[0].bias),
        "n_layers_encoder": len(layers),
    }


def _double(values: torch.Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array(values.detach() if isinstance(values, torch.Tensor) else values, dtype=np.float64)


def _copy(target: torch.Tensor, values: NDArray[np.float64]) -> None:
    target.copy_(torch.tensor(values))
