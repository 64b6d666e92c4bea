"""Distributions of counts, one file each: parts, start, deviance, information, draws. Knows NumPy only."""

from __future__ import annotations

from typing import Literal, TypeAlias

from sc_ldvae.likelihoods._ahead import Mode, compile_ahead, compiled_together
from sc_ldvae.likelihoods._background import WithBackground
from sc_ldvae.likelihoods._bernoulli import Bernoulli
from sc_ldvae.likelihoods._block import Block
from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood, Part
from sc_ldvae.likelihoods._negative_binomial import NegativeBinomial, log_theta_by_moments
from sc_ldvae.likelihoods._poisson import Poisson
from sc_ldvae.likelihoods._zero_inflated import ZeroInflated

GeneLikelihood: TypeAlias = Literal["nb", "zinb", "poisson", "bernoulli", "nb_background"]

LIKELIHOODS: dict[str, Likelihood] = {
    one.name: one for one in (NegativeBinomial(), ZeroInflated(), Poisson(), Bernoulli(), WithBackground())
}

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Block",
    "Contrasts",
    "GeneLikelihood",
    "Likelihood",
    "Mode",
    "NegativeBinomial",
    "Part",
    "Poisson",
    "WithBackground",
    "ZeroInflated",
    "compile_ahead",
    "compiled_together",
    "log_theta_by_moments",
]
