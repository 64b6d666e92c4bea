"""What can be said of factors once they are fitted: errors, matching, rotation. Knows arrays, not AnnData."""

from __future__ import annotations

from sc_ldvae.assess._information import gene_information
from sc_ldvae.assess._matching import directions, matched, spanned
from sc_ldvae.assess._rotation import ROTATIONS, Method, promax, varimax
from sc_ldvae.assess._signs import signs
from sc_ldvae.assess._stability import Stability, stability

__all__ = [
    "ROTATIONS",
    "Method",
    "Stability",
    "directions",
    "gene_information",
    "matched",
    "promax",
    "signs",
    "spanned",
    "stability",
    "varimax",
]
