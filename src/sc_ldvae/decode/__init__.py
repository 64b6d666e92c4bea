"""What a stored decoder says of cells: proportions, counts, comparisons. Knows arrays, neither torch nor AnnData."""

from __future__ import annotations

from sc_ldvae.decode._expression import CHUNK, Expression, draw_latent
from sc_ldvae.decode._factors import with_factors

__all__ = ["CHUNK", "Expression", "draw_latent", "with_factors"]
