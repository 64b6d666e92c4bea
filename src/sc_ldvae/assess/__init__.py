"""What can be said of factors once they are fitted: errors, matching, rotation. Knows arrays, not AnnData."""

from __future__ import annotations

from sc_ldvae.assess._information import gene_information
from sc_ldvae.assess._rotation import ROTATIONS, Method, promax, varimax

__all__ = [
    "ROTATIONS",
    "Method",
    "gene_information",
    "promax",
    "varimax",
]
