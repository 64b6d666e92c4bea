"""Enrichment of loadings in sets of genes, by decoupler."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats

Enrichment: TypeAlias = Literal["ulm", "mlm", "zscore"]


def enriched(method: Enrichment, loadings: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Scores and p-values, factors x sources, from loadings (factors x genes) and weights (genes x sources)."""
    with warnings.catch_warnings():
        # numba's and those of what decoupler imports: none of them is the caller's to mend.
        warnings.simplefilter("ignore")
        try:
            import decoupler
        except ImportError as error:
            msg = "tl.enrichment needs decoupler: pip install 'sc-ldvae[enrich]'."
            raise ImportError(msg) from error
        # Called as such, methods give p-values that are already adjusted (but 'mlm'), within each factor alone.
        compute: Any = getattr(decoupler.mt, method).func
        scores, pvalues = compute(np.ascontiguousarray(loadings), weights)
    return np.asarray(scores), np.asarray(pvalues)
