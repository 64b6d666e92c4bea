"""A minibatch of counts: compressed rows, and the same nonzeros by gene."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae.kernels._jit import kernel, log1p

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Log factorials up to here come from a table.
_LOG_FACTORIALS = np.array([math.lgamma(x + 1.0) for x in range(1024)])

# Those of 2**31 in single precision; of smaller positive numbers they are smaller.
_BITS_OF_TOO_LARGE = 0x4F000000


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
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.floating[Any]],
    chosen: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.floating[Any]]]:
    """Pointers, columns and values of the `chosen` rows of a CSR matrix."""
    chosen, pointers = np.ascontiguousarray(chosen), np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(indptr[chosen + 1] - indptr[chosen], out=pointers[1:])
    columns, own = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], values.dtype)
    _gather(indptr, indices, values, chosen, pointers, columns, own)
    return pointers, columns, own


def rows_between(
    indptr: NDArray[np.integer[Any]],
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.floating[Any]],
    chosen: NDArray[np.integer[Any]],
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.floating[Any]]]:
    """Pointers, columns and values of the columns from `start` to below `stop` in the `chosen` rows of a CSR matrix."""
    firsts, pointers = np.empty(len(chosen), np.int64), np.zeros(len(chosen) + 1, np.int64)
    _find(indptr, indices, chosen, start, stop, firsts, pointers)
    columns, own = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], values.dtype)
    _take(indices, values, start, firsts, pointers, columns, own)
    return pointers, columns, own


def first_other_row(
    indptr: NDArray[np.integer[Any]],
    genes: NDArray[np.int32],
    values: NDArray[np.float32],
    totals: NDArray[np.float64],
    n_vars: int,
) -> int:
    """First row that holds anything but counts of ascending genes with this total; their number if there is none."""
    return int(_first_other(indptr, genes, values, values.view(np.int32), totals, n_vars))


def sparse_rows(
    indptr: NDArray[np.int64],
    genes: NDArray[np.int32],
    counts: NDArray[np.floating[Any]],
    n_vars: int,
    *,
    log_variational: bool,
) -> SparseRows:
    """What the kernels need of counts in compressed rows; with `log_variational` the encoders see their log1p."""
    n_cells, n, dtype = len(indptr) - 1, len(genes), counts.dtype
    rows = SparseRows(
        indptr,
        genes,
        counts,
        np.empty(n, dtype),
        np.empty(n_vars + 1, np.int64),
        np.empty(n, np.int32),
        np.empty(n, dtype),
        np.empty(n_cells, dtype),
        np.empty(n_cells, dtype),
    )
    _sum_up(rows, log_variational, _LOG_FACTORIALS)
    _sort_by_gene(rows)
    return rows


@kernel
def _gather(indptr, indices, values, chosen, pointers, columns, own):
    for i in range(len(chosen)):
        shift = indptr[chosen[i]] - pointers[i]
        for to in range(pointers[i], pointers[i + 1]):
            columns[to] = indices[to + shift]
            own[to] = values[to + shift]


@kernel
def _find(indptr, indices, chosen, start, stop, firsts, pointers):
    for i in range(len(chosen)):
        ends = indptr[chosen[i]], indptr[chosen[i] + 1]
        firsts[i] = ends[0] + np.searchsorted(indices[ends[0] : ends[1]], start)
        last = ends[0] + np.searchsorted(indices[ends[0] : ends[1]], stop)
        pointers[i + 1] = pointers[i] + last - firsts[i]


@kernel
def _take(indices, values, start, firsts, pointers, columns, own):
    for i in range(len(firsts)):
        shift = firsts[i] - pointers[i]
        for to in range(pointers[i], pointers[i + 1]):
            columns[to] = indices[to + shift] - start
            own[to] = values[to + shift]


@kernel
def _first_other(indptr, genes, values, bits, totals, n_vars):
    for i in range(len(totals)):
        total, before = 0, -1
        for j in range(indptr[i], indptr[i + 1]):
            # What is infinite or no number is told by its bits: kernels are compiled as if there were none.
            if not 0 < bits[j] < _BITS_OF_TOO_LARGE or not before < genes[j] < n_vars:
                return i
            count = int(values[j])
            if count != values[j]:
                return i
            total += count
            before = genes[j]
        if total != totals[i]:
            return i
    return len(totals)


@kernel
def _sum_up(rows, log_variational, log_factorials):
    counts, seen = rows.counts, rows.seen
    for i in range(len(rows.totals)):
        total = log_factorial = 0.0
        for j in range(rows.indptr[i], rows.indptr[i + 1]):
            x = counts[j]
            total += x
            log_factorial += log_factorials[int(x)] if x < len(log_factorials) else math.lgamma(x + 1.0)
        rows.totals[i] = total
        rows.log_factorials[i] = log_factorial
    for j in range(len(counts)):
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
