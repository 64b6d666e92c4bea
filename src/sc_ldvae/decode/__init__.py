"""What a stored decoder says of cells: proportions, counts, comparisons. Knows arrays, neither torch nor AnnData."""

from __future__ import annotations

from sc_ldvae.decode._compare import Comparison, compared, mixture
from sc_ldvae.decode._correlation import correlation
from sc_ldvae.decode._counts import CountDistribution, chunks_of
from sc_ldvae.decode._expression import CHUNK, Expression, draw_latent
from sc_ldvae.decode._factors import with_factors
from sc_ldvae.decode._log_proportions import LogProportions

__all__ = [
    "CHUNK",
    "Comparison",
    "CountDistribution",
    "Expression",
    "LogProportions",
    "chunks_of",
    "compared",
    "correlation",
    "draw_latent",
    "mixture",
    "with_factors",
]
