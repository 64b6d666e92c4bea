"""Counts split at random into two parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sc_ldvae.counts._source import Source


def thinned(source: Source, share: float, rng: np.random.Generator) -> tuple[csr_matrix, csr_matrix]:
    """A binomial share of each count, and the rest of it scaled to the size that counts had, both n_obs x n_vars."""
    counts = source.rows(np.arange(source.n_obs))
    kept, judged = counts.copy(), counts.copy()
    judged.data = rng.binomial(counts.data.astype(np.int64), share).astype(np.float32)
    # What the encoder reads has the size that it is used to.
    kept.data = (counts.data - judged.data) / np.float32(1 - share)
    for part in (kept, judged):
        part.eliminate_zeros()
    return judged, kept
