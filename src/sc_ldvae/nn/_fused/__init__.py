"""The fused engine: the model's ELBO and gradient on the CPU from sparse counts, in closed form."""

from __future__ import annotations

from sc_ldvae.nn._fused._adam import Adam
from sc_ldvae.nn._fused._compare import compare, normalise
from sc_ldvae.nn._fused._deviance import deviances
from sc_ldvae.nn._fused._elbo import FusedElbo
from sc_ldvae.nn._fused._proportions import add_proportions
from sc_ldvae.nn._fused._rows import SparseRows, gather_rows
from sc_ldvae.nn._fused._threads import Pace, as_many_threads_as_torch, n_parts

__all__ = [
    "Adam",
    "FusedElbo",
    "Pace",
    "SparseRows",
    "add_proportions",
    "as_many_threads_as_torch",
    "compare",
    "deviances",
    "gather_rows",
    "n_parts",
    "normalise",
]
