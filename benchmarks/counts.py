"""Counts of an AnnData; loads nothing that a measured process would not need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    import anndata as ad


def counts_of(adata: ad.AnnData) -> csr_matrix:
    """Counts as compressed sparse rows."""
    return csr_matrix(adata.X)


def megabytes(counts: csr_matrix) -> float:
    """Memory that the counts take."""
    return (counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes) / 1e6
