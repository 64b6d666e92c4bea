"""A minibatch of counts: compressed rows, and the same nonzeros by gene."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae.nn._fused._jit import kernel, log1p

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Log factorials up to here come from a table.
_LOG_FACTORIALS = np.array([math.lgamma(x + 1.0) for x in range(1024)])


class SparseRows(NamedTuple):
    """Counts of some cells. Nonzeros of a cell, or of a gene, are those between two consecutive pointers."""

    indptr: NDArray[np.int64]
    genes: NDArray[np.int32]
    counts: NDArray[np.floating[Any]]
    seen: NDArray[np.floating[Any]]
    """What the encoders see of each nonzero."""
    gene_indptr: NDArray[np.int64]
    cells: NDArray[np.int32]
    """Cell of each nonzero, by gene."""
    seen_by_gene: NDArray[np.floating[Any]]
    totals: NDArray[np.floating[Any]]
    log_factorials: NDArray[np.floating[Any]]
    """Sum of log(x!) of each cell's counts."""


def gather_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.floating[Any]],
    n_vars: int,
    chosen: NDArray[np.int64],
    *,
    log_variational: bool,
) -> SparseRows:
    """The `chosen` rows of a canonical CSR matrix."""
    own = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(indptr[chosen + 1] - indptr[chosen], out=own[1:])
    n, dtype = own[-1], values.dtype
    rows = SparseRows(
        own,
        np.empty(n, np.int32),
        np.empty(n, dtype),
        np.empty(n, dtype),
        np.empty(n_vars + 1, np.int64),
        np.empty(n, np.int32),
        np.empty(n, dtype),
        np.empty(len(chosen), dtype),
        np.empty(len(chosen), dtype),
    )
    _gather(indptr, indices, values, chosen, log_variational, _LOG_FACTORIALS, rows)
    _sort_by_gene(rows)
    return rows


@kernel
def _gather(indptr, indices, values, chosen, log_variational, log_factorials, rows):
    genes, counts, seen = rows.genes, rows.counts, rows.seen
    to = 0
    for i in range(len(chosen)):
        total = log_factorial = 0.0
        for j in range(indptr[chosen[i]], indptr[chosen[i] + 1]):
            x = values[j]
            genes[to] = indices[j]
            counts[to] = x
            total += x
            log_factorial += log_factorials[int(x)] if x < len(log_factorials) else math.lgamma(x + 1.0)
            to += 1
        rows.totals[i] = total
        rows.log_factorials[i] = log_factorial
    for j in range(to):
        seen[j] = log1p(counts[j]) if log_variational else counts[j]


@kernel
def _sort_by_gene(rows):
    """A counting sort: the pointers first move to where each gene ends, then back."""
    pointers, genes, seen = rows.gene_indptr, rows.genes, rows.seen
    cells, seen_by_gene = rows.cells, rows.seen_by_gene
    pointers[:] = 0
    for g in genes:
        pointers[g + 1] += 1
    for g in range(1, len(pointers)):
        pointers[g] += pointers[g - 1]
    for cell in range(len(rows.indptr) - 1):
        for j in range(rows.indptr[cell], rows.indptr[cell + 1]):
            to = pointers[genes[j]]
            cells[to] = cell
            seen_by_gene[to] = seen[j]
            pointers[genes[j]] = to + 1
    for g in range(len(pointers) - 1, 0, -1):
        pointers[g] = pointers[g - 1]
    pointers[0] = 0
