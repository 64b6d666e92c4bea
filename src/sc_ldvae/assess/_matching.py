"""Factors of one fit beside those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from sc_ldvae._products import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats, Positions

# Share of the largest squared axis below which one is rounding.
_SMALLEST_AXIS = 1e-12


def directions(loadings: Floats, weights: Floats, softmaxes: Sequence[slice] = (slice(None),)) -> Floats:
    """Loadings as unit vectors, such that inner products are cosines between factors, n_genes x n_latent.

    Parameters
    ----------
    loadings
        n_genes x n_latent.
    weights
        Weight of each gene, n_genes.
    softmaxes
        Genes that share a softmax. A constant over all of them, which it does not see, is taken out under the weights.
    """
    centred = loadings.astype(np.float64)
    for genes in softmaxes:
        centred[genes] -= np.average(loadings[genes], axis=0, weights=weights[genes])
    scaled = centred * np.sqrt(weights)[:, None]
    return scaled / np.maximum(np.linalg.norm(scaled, axis=0), np.finfo(np.float64).tiny)


def matched(own: Floats, other: Floats) -> tuple[Positions, Floats]:
    """The other fit's factor for each of ours, one to one, and its cosine, n_latent each.

    By the Hungarian method: the assignment with the largest sum of absolute cosines [Kuhn55]_.

    Parameters
    ----------
    own, other
        `directions` of two fits with equally many factors.

    References
    ----------
    .. [Kuhn55] Kuhn (1955). The Hungarian method for the assignment problem. Naval Research Logistics 2:83.
    """
    cosines = inner(own, other)
    rows, partners = linear_sum_assignment(-np.abs(cosines))
    return partners, cosines[rows, partners]


def spanned(own: Floats, other: Floats) -> Floats:
    """Cosine of each of our factors with the space that the other fit's factors span, n_latent."""
    sizes, axes = np.linalg.eigh(inner(other, other))
    # Factors without loadings, or alike ones, span nothing of their own.
    spans = sizes > _SMALLEST_AXIS * sizes.max()
    coordinates = axes.T @ inner(other, own)
    return np.sqrt((coordinates[spans] ** 2 / sizes[spans, None]).sum(0))


def softmaxes(of_modalities: Sequence[Floats], has_library: Sequence[bool]) -> list[slice]:
    """Where genes stand that share a softmax, from an array of each modality with one row per gene."""
    ends = np.cumsum([len(one) for one in of_modalities]).tolist()
    stretches = [slice(end - len(one), end) for one, end in zip(of_modalities, ends, strict=True)]
    return [genes for genes, shared in zip(stretches, has_library, strict=True) if shared]
