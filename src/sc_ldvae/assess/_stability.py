"""Which factors come back when the model is fitted again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._products import inner
from sc_ldvae.assess._matching import directions, matched, spanned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats, Mask

# Two directions that each have a quarter of a factor's squared length share it.
_SHARED = 0.5


@dataclass(frozen=True)
class Stability:
    """How well factors come back, factor by factor."""

    score: Floats
    """Expected cosine with the same factor in a fit to other cells as many, n_latent."""
    replication: Floats
    """Cosine between the factor in one refit and in its pair's other refit, n_pairs x n_latent."""
    cosine: Floats
    """Absolute cosine of each refit's factor with ours, n_refits x n_latent."""
    span: Floats
    """Mean cosine of the factor in one refit with all factors of its pair's other refit, n_latent."""
    splits: Mask
    """Whether two or more factors of most refits share the factor."""
    merges: Mask
    """Whether in most refits one factor shares this and another of ours."""
    consensus: Floats
    """Mean of the refits' loadings, matched and signed, n_genes x n_latent."""
    consensus_sd: Floats
    """Their standard deviation over the refits, n_genes x n_latent."""


def stability(
    loadings: Floats,
    refits: Sequence[Floats],
    pairs: Sequence[tuple[int, int]],
    weights: Floats,
    *,
    halves: bool,
    centred: bool = True,
) -> Stability:
    """Compare refits with each other, in the order and with the signs of a fit's own factors.

    Refits that see different cells are compared with each other, not with the fit, whose cells they share: noise does
    not come back. What two halves of the cells have in common says what two sets of all cells would: the part of the
    loadings that is noise halves (formula of Spearman and Brown) [Spearman1910]_ [Brown1910]_.

    Parameters
    ----------
    loadings
        Of the fit's factors, n_genes x n_latent.
    refits
        Of each refit, n_genes x at least as many; factors that vanished there have none.
    pairs
        Refits that are compared.
    weights
        How well each gene is measured, n_genes.
    halves
        Whether the pairs are fits to disjoint halves of the cells.
    centred
        Whether the model does not see a constant over all genes (`directions`).

    References
    ----------
    .. [Spearman1910] Spearman (1910). Correlation calculated from faulty data. British Journal of Psychology 3:271.
    .. [Brown1910] Brown (1910). Some experimental results in the correlation of mental abilities. British Journal of
       Psychology 3:296.
    """
    own = directions(loadings, weights, centred=centred)
    aligned, cosine, splits, merges = [], [], [], []
    for refit in refits:
        other = directions(refit, weights, centred=centred)
        partners, cosines = matched(own, other)
        signs = np.where(cosines < 0, -1.0, 1.0)
        aligned.append(refit.astype(np.float64)[:, partners] * signs)
        cosine.append(np.abs(cosines))
        close = np.abs(inner(own, other)) >= _SHARED
        splits.append(close.sum(1) > 1)
        merges.append((close & (close.sum(0) > 1)).any(1))
    found = [directions(refit, weights, centred=centred) for refit in aligned]
    replication = np.array([(found[i] * found[j]).sum(0) for i, j in pairs])
    span = np.mean([spanned(found[a], found[b]) for i, j in pairs for a, b in ((i, j), (j, i))], axis=0)
    score = np.clip(replication.mean(0), 0, 1)
    return Stability(
        score=2 * score / (1 + score) if halves else score,
        replication=replication,
        cosine=np.array(cosine),
        span=span,
        splits=np.mean(splits, axis=0) > _SHARED,
        merges=np.mean(merges, axis=0) > _SHARED,
        consensus=np.mean(aligned, axis=0),
        consensus_sd=np.std(aligned, axis=0),
    )
