"""Counts in compressed rows in an uncompressed HDF5 file, of which some rows at a time are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from sc_ldvae.counts import InMemory, Source, Subset, check_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.stores._scratch import Scratch

# Counts that are rather read along than left out, and the most that are read at once.
_GAP, _MOST = 2**15, 2**22
_MOST_OF_32_BITS = 2**31 - 1


class Found(NamedTuple):
    """What is known of all counts after a pass over them."""

    pointers: NDArray[np.int64]
    """Where each cell's values begin and end, n_obs + 1: zeros and repeated genes among them, where there are some."""
    totals: NDArray[np.float64]
    n_nonzeros: int
    n_vars: int


@dataclass(frozen=True)
class OnDisk(Source):
    """What a pass over all counts has found to be counts, and is to find so again."""

    group: Any
    """Of HDF5: data, indices and indptr, as anndata writes them."""
    name: str
    """What messages call it."""
    found: Found
    scratch: Scratch | None = None
    """The file, if it is to be gone afterwards."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.found.totals)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.found.n_vars

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's counts, n_obs."""
        return self.found.totals

    @property
    def nonzeros_per_cell(self) -> float:
        """How many genes a cell has counts of, on average."""
        return self.found.n_nonzeros / max(1, self.n_obs)

    def rows(self, cells: Positions) -> sparse.csr_matrix:
        """Counts of the cells at these positions, in their order."""
        return self.kept(cells).rows(np.arange(len(cells)))

    def kept(self, cells: Positions) -> Source:
        """The cells at these positions, in memory."""
        chosen, places = np.unique(cells, return_inverse=True)
        return Subset(InMemory(self._ascending(chosen)), places)

    def _ascending(self, cells: Positions) -> sparse.csr_matrix:
        """Counts of cells in ascending order, once each."""
        pointers = self.found.pointers
        lengths = pointers[cells + 1] - pointers[cells]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        try:
            stored = self.group["data"], self.group["indices"]
            values, genes = np.empty(ends[-1], stored[0].dtype), np.empty(ends[-1], np.int32)
            for first, last in self._spans(cells):
                begin, end = pointers[cells[first]], pointers[cells[last - 1] + 1]
                own = slice(ends[first], ends[last])
                wanted: Any = slice(None)
                if last - first <= cells[last - 1] - cells[first]:
                    wanted = self._are_of(cells[first:last])
                values[own], genes[own] = (array[begin:end][wanted] for array in stored)
            # In the type of the genes, or SciPy would look at all of either for one that has both.
            own_ends = ends.astype(np.int32) if ends[-1] <= _MOST_OF_32_BITS else ends
            rows = sparse.csr_matrix((values, genes, own_ends), shape=(len(cells), self.n_vars))
            if self._are_as_they_were(rows, cells):
                return rows
            counts = InMemory(check_counts(rows, self.name))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise self._changed(str(error)) from error
        wrong = np.flatnonzero(counts.totals != self.totals[cells])
        if len(wrong):
            before, now = self.totals[cells[wrong[0]]], counts.totals[wrong[0]]
            what = f"cell {cells[wrong[0]]} had {before:.0f} counts, and has {now:.0f} now"
            raise self._changed(what)
        return counts.matrix

    def _are_as_they_were(self, rows: sparse.csr_matrix, cells: Positions) -> bool:
        """Whether these are plainly the counts of these cells, which takes a fraction of the time of finding out."""
        from sc_ldvae.kernels import first_other_row

        if rows.data.dtype != np.float32:
            return False
        totals = self.totals[cells]
        return first_other_row(rows.indptr, rows.indices, rows.data, totals, self.n_vars) == len(totals)

    def _spans(self, cells: Positions) -> Iterator[tuple[int, int]]:
        """Stretches of `cells` that are read at once."""
        begins, ends = self.found.pointers[cells], self.found.pointers[cells + 1]
        first = 0
        # Where the next cell is too far away.
        for last in [*(np.flatnonzero(begins[1:] - ends[:-1] > _GAP) + 1), len(cells)]:
            while first < last:
                fit = first + int(np.searchsorted(ends[first:last], begins[first] + _MOST, "right"))
                stop = max(fit, first + 1)
                yield first, stop
                first = stop

    def _are_of(self, cells: Positions) -> NDArray[np.bool_]:
        """Which counts from the first to the last of these cells are of one of them."""
        lengths = np.diff(self.found.pointers[cells[0] : cells[-1] + 2])
        wanted = np.zeros(len(lengths), dtype=bool)
        wanted[cells - cells[0]] = True
        return np.repeat(wanted, lengths)

    def _changed(self, what: str) -> OSError:
        msg = (
            f"{self.name} is not on disk any more what it was when it was first read: {what}. Something has changed, "
            "truncated or closed the file meanwhile. Open it again, and leave it alone while it is read."
        )
        return OSError(msg)
