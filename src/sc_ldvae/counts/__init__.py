"""Counts from wherever they live to checked minibatches. Knows neither AnnData nor the model."""

from __future__ import annotations

from sc_ldvae.counts._cells import Cells, n_minibatches, shuffled
from sc_ldvae.counts._check import check_counts, check_no_empty_cell
from sc_ldvae.counts._counts import Counts

__all__ = ["Cells", "Counts", "check_counts", "check_no_empty_cell", "n_minibatches", "shuffled"]
