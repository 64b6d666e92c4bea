"""What a stored decoder says of cells: proportions, counts, comparisons. Knows arrays, neither torch nor AnnData."""

from __future__ import annotations

from sc_ldvae.decode._compare import Compared, Comparison, compared, mean_comparison, mixture
from sc_ldvae.decode._correlation import correlation
from sc_ldvae.decode._counts import CountDistribution, chunks_of
from sc_ldvae.decode._draws import Posteriors
from sc_ldvae.decode._expression import CHUNK, Expression, draw_latent
from sc_ldvae.decode._factors import with_factors
from sc_ldvae.decode._log_proportions import LogProportions
from sc_ldvae.decode._normalized import GeneColumns, Normalized
from sc_ldvae.decode._ranking import Mode, ranking

__all__ = [
    "CHUNK",
    "Compared",
    "Comparison",
    "CountDistribution",
    "Expression",
    "GeneColumns",
    "LogProportions",
    "Mode",
    "Normalized",
    "Posteriors",
    "chunks_of",
    "compared",
    "correlation",
    "draw_latent",
    "mean_comparison",
    "mixture",
    "ranking",
    "with_factors",
]
