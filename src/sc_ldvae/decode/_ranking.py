"""From a comparison to ranked genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats
    from sc_ldvae.decode._compare import Comparison

Mode = Literal["change", "vanilla"]
# Keeps Bayes factors finite.
_LEAST_PROBABILITY = 1e-4


def ranking(comparison: Comparison, test: int, genes: np.ndarray, mode: Mode, fdr: float) -> pd.DataFrame:
    """One row per gene, in their order; columns as :func:`sc_ldvae.tl.differential_expression` describes them."""
    up, down = (comparison.up[test], comparison.down[test])
    if mode == "vanilla":
        up, down = comparison.greater[test], 1 - comparison.greater[test]
    proba_de = np.maximum(up, down)
    not_de = 1 - proba_de
    surest = np.sort(not_de)
    # Genes that are equally sure are called together.
    n_called = np.searchsorted(surest, not_de, side="right")
    expected_fdr = np.cumsum(surest)[n_called - 1] / n_called
    return pd.DataFrame(
        {
            "names": genes,
            "scores": _log_odds(0.5 + (up - down) / 2),
            "logfoldchanges": comparison.mean[test],
            "pvals": not_de,
            "pvals_adj": expected_fdr,
            "lfc_sd": np.sqrt(comparison.variance[test]),
            "proba_de": proba_de,
            "bayes_factor": _log_odds(proba_de),
            "is_de": expected_fdr <= fdr,
            "proportion": comparison.proportion[test],
            "proportion_reference": comparison.proportion_reference[test],
        }
    )


def _log_odds(probability: Floats) -> Floats:
    return np.log((probability + _LEAST_PROBABILITY) / (1 - probability + _LEAST_PROBABILITY))
