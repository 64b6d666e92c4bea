"""Cells of a fit: their counts and what else the model knows of each, handed out in minibatches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.counts._order import ALL, Share, buffered, buffers_of
from sc_ldvae.counts._source import in_chunks
from sc_ldvae.counts._subset import Subset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.counts._order import Permuting
    from sc_ldvae.counts._source import Source


@dataclass(frozen=True)
class Minibatch:
    """Some cells, as an engine takes them."""

    counts: csr_matrix
    annotations: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return int(self.counts.shape[0])


@dataclass(frozen=True)
class Cells:
    """Counts, and annotations by the name of the model's argument; each has one row per cell."""

    source: Source
    annotations: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    def library(self, cells: Positions) -> Floats:
        """Observed library of the cells at these positions: total counts, or size factors in counts."""
        size_factor = self.annotations.get("size_factor")
        return (self.source.totals if size_factor is None else size_factor)[cells].astype(np.float32)

    def minibatch(self, cells: Positions) -> Minibatch:
        """The cells at these positions."""
        return Minibatch(self.source.rows(cells), self._annotations_of(cells))

    def subset(self, cells: Positions) -> Cells:
        """Cells by position, in which a cell may be repeated."""
        return Cells(Subset(self.source, cells), self._annotations_of(cells))

    def kept(self, cells: Positions) -> Cells:
        """Cells by position, for what reads them again and again."""
        return Cells(self.source.kept(cells), self._annotations_of(cells))

    def chunks(self, cells: Positions, size: int) -> Iterator[Minibatch]:
        """The cells at these positions in their order, so many at a time."""
        for chunk, counts in in_chunks(self.source, cells, size):
            yield Minibatch(counts, self._annotations_of(cells[chunk]))

    def shuffled(
        self, cells: Positions, batch_size: int, rng: Permuting, skipped: int = 0, share: Share = ALL
    ) -> Iterator[Minibatch]:
        """Every cell once, in random order, in minibatches of equal size (to within one cell), without the first ones.

        Equal sizes, so that no minibatch ever holds a single cell, for which BatchNorm has no variance. Of several
        processes each gets as many.
        """
        at_once = buffered(self.source.nonzeros_per_cell)
        buffers = buffers_of(len(cells), n_minibatches(len(cells), batch_size, share.n), at_once, rng, share)
        while buffers and skipped >= len(buffers[0].sizes):
            skipped -= len(buffers.pop(0).sizes)
        for order, sizes in buffers:
            source = self.source.kept(cells[order])
            minibatches = np.split(np.arange(len(order)), np.cumsum(sizes)[:-1])
            for own in minibatches[skipped:]:
                yield Minibatch(source.rows(own), self._annotations_of(cells[order[own]]))
            skipped = 0
            # There is one at a time in memory.
            del source

    def _annotations_of(self, cells: Positions) -> dict[str, NDArray[Any]]:
        return {name: values[cells] for name, values in self.annotations.items()}


def n_minibatches(n_cells: int, batch_size: int, n_shares: int = 1) -> int:
    """How many minibatches `Cells.shuffled` makes for each of so many processes."""
    return max(1, min(round(n_cells / (n_shares * batch_size)), n_cells // (2 * n_shares)))


def evenly(cells: Positions, at_most: int) -> Positions:
    """Evenly spaced cells, all of them if they are few."""
    return cells[:: max(1, -(-len(cells) // at_most))]
