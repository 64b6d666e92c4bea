"""Factors of one fit beside those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from sc_ldvae._products import inner

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats, Positions

# Share of the largest squared axis below which one is rounding.
_SMALLEST_AXIS = 1e-12


def directions(loadings: Floats, weights: Floats, *, centred: bool = True) -> Floats:
    """Loadings as unit vectors, such that inner products are cosines between factors, n_genes x n_latent.

    Parameters
    ----------
    loadings
        n_genes x n_latent.
    weights
        Weight of each gene, n_genes.
    centred
        Whether a constant over all genes, which a softmax does not see, is taken out under these weights.
    """
    shared = np.average(loadings, axis=0, weights=weights) if centred else 0.0
    scaled = (loadings.astype(np.float64) - shared) * np.sqrt(weights)[:, None]
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
