"""Enrichment of loadings in sets of genes, by decoupler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from sc_ldvae._quiet import quiet

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats

Enrichment: TypeAlias = Literal["ulm", "mlm", "zscore"]


def enriched(method: Enrichment, loadings: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Scores and p-values, factors x sources, from loadings (factors x genes) and weights (genes x sources)."""
    # Called as such, methods give p-values that are already adjusted (but 'mlm'), within each factor alone.
    compute: Any = getattr(_decoupler().mt, method).func
    # A factor without variation has no score.
    with np.errstate(all="ignore"):
        scores, pvalues = compute(np.ascontiguousarray(loadings), weights)
    return np.asarray(scores), np.asarray(pvalues)


def _decoupler() -> Any:  # noqa: ANN401  it may be missing
    # Loading it loads many packages that warn of each other.
    with quiet():
        try:
            import decoupler
        except ImportError as error:
            msg = "tl.enrichment needs decoupler: pip install 'sc-ldvae[enrich]'."
            raise ImportError(msg) from error
    return decoupler
