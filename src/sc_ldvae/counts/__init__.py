"""Sources of counts, checked, and minibatches of them. Knows neither AnnData nor the model."""

from __future__ import annotations

from sc_ldvae.counts._beside import Beside, among_empty
from sc_ldvae.counts._cells import PRESENT, Cells, Minibatch, View, evenly, n_minibatches
from sc_ldvae.counts._check import NotCountsError, check_counts, check_no_empty_cell, check_numbers
from sc_ldvae.counts._in_memory import InMemory
from sc_ldvae.counts._order import Share
from sc_ldvae.counts._source import Source, gene_totals, in_chunks, source_of
from sc_ldvae.counts._subset import Subset, WithColumns
from sc_ldvae.counts._thin import thinned

__all__ = [
    "PRESENT",
    "Beside",
    "Cells",
    "InMemory",
    "Minibatch",
    "NotCountsError",
    "Share",
    "Source",
    "Subset",
    "View",
    "WithColumns",
    "among_empty",
    "check_counts",
    "check_no_empty_cell",
    "check_numbers",
    "evenly",
    "gene_totals",
    "in_chunks",
    "n_minibatches",
    "source_of",
    "thinned",
]
