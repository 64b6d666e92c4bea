"""What computes scores and steps: fused kernels on the CPU, autograd elsewhere. Knows modules and minibatches."""

from __future__ import annotations

from sc_ldvae.engine._adam import Adam
from sc_ldvae.engine._adaptive_prior import AdaptivePrior
from sc_ldvae.engine._autograd import Autograd, AutogradEngine
from sc_ldvae.engine._captured import CapturedEngine
from sc_ldvae.engine._elbo import FusedElbo
from sc_ldvae.engine._engine import Engine, Scorer, engine_of, scorer_of
from sc_ldvae.engine._pace import Pace

__all__ = [
    "Adam",
    "AdaptivePrior",
    "Autograd",
    "AutogradEngine",
    "CapturedEngine",
    "Engine",
    "FusedElbo",
    "Pace",
    "Scorer",
    "engine_of",
    "scorer_of",
]
