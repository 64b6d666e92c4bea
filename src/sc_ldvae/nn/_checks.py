"""What a model is built of and called with, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sc_ldvae._options import Dispersion, LatentDistribution
from sc_ldvae._said import said
from sc_ldvae.nn._log_probs import LOG_PROBS

if TYPE_CHECKING:
    from torch import Tensor


def needed(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        msg = f"{name} is missing: this model was built with several of its levels."
        raise ValueError(msg)
    return value


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            msg = f"{name} must be at least 1, but is {size}."
            raise ValueError(msg)


def check_choices(dispersion: str, gene_likelihood: str, latent_distribution: str) -> None:
    for name, value, choices in (
        ("dispersion", dispersion, get_args(Dispersion)),
        ("gene_likelihood", gene_likelihood, tuple(LOG_PROBS)),
        ("latent_distribution", latent_distribution, get_args(LatentDistribution)),
    ):
        if value not in choices:
            msg = f"{name}={said(value)} is unknown. Choose one of {', '.join(map(repr, choices))}."
            raise ValueError(msg)
