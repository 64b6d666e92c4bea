"""Cells of a fit: their counts and what else the model knows of each, handed out in minibatches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.counts._subset import Subset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.counts._source import Permuting, Source


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
        return Minibatch(self.source.rows(cells), {name: values[cells] for name, values in self.annotations.items()})

    def subset(self, cells: Positions) -> Cells:
        """Cells by position, in which a cell may be repeated."""
        return Cells(Subset(self.source, cells), {name: values[cells] for name, values in self.annotations.items()})

    def chunks(self, cells: Positions, size: int) -> Iterator[Minibatch]:
        """The cells at these positions in their order, so many at a time; read when they are asked for."""
        for start in range(0, len(cells), size):
            yield self.minibatch(cells[start : start + size])

    def shuffled(self, cells: Positions, batch_size: int, rng: Permuting) -> Iterator[Minibatch]:
        """Every cell once, in random order, in minibatches of equal size (to within one cell).

        Equal sizes, so that no minibatch ever holds a single cell, for which BatchNorm has no variance.
        """
        order = self.source.shuffled(cells, rng)
        for chosen in np.array_split(order, n_minibatches(len(cells), batch_size)):
            yield self.minibatch(chosen)


def n_minibatches(n_cells: int, batch_size: int) -> int:
    """How many minibatches `Cells.shuffled` makes."""
    return max(1, min(round(n_cells / batch_size), n_cells // 2))


def evenly(cells: Positions, at_most: int) -> Positions:
    """Evenly spaced cells, all of them if they are few."""
    return cells[:: -(-len(cells) // at_most)]
