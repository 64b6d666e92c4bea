"""What computes scores and steps: fused kernels on the CPU, autograd elsewhere. Knows modules and minibatches."""

from __future__ import annotations

from sc_ldvae.engine._adam import Adam
from sc_ldvae.engine._adaptive_prior import AdaptivePrior
from sc_ldvae.engine._adaptive_priors import AdaptivePriors
from sc_ldvae.engine._autograd import Autograd, AutogradEngine
from sc_ldvae.engine._captured import CapturedEngine
from sc_ldvae.engine._elbo import FusedElbo
from sc_ldvae.engine._engine import Engine, Scorer, engine_of, scorer_of
from sc_ldvae.engine._pace import Pace
from sc_ldvae.engine._ranks import Ranks, own_device, place, ranks_of
from sc_ldvae.engine._view import Shown

__all__ = [
    "Adam",
    "AdaptivePrior",
    "AdaptivePriors",
    "Autograd",
    "AutogradEngine",
    "CapturedEngine",
    "Engine",
    "FusedElbo",
    "Pace",
    "Ranks",
    "Scorer",
    "Shown",
    "engine_of",
    "own_device",
    "place",
    "ranks_of",
    "scorer_of",
]
