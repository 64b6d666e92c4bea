"""Counts split at random into two parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.counts._in_memory import InMemory
from sc_ldvae.counts._source import Source, in_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Positions

_AT_ONCE = 4096


@dataclass(frozen=True)
class _Part(Source):
    """A binomial share of each count, or the rest of it: drawn anew, to the same numbers, whenever a cell is read."""

    source: Source
    share: float
    judged: bool
    key: NDArray[np.uint64]
    """Of the generators, 2: each cell has one of its own, so that cells can be read in any order."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.source.n_vars

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """Sum of each cell's part, n_obs."""
        totals = np.empty(self.n_obs)
        for own, part in in_chunks(self, np.arange(self.n_obs), _AT_ONCE):
            totals[own] = InMemory(part).totals
        return totals

    @property
    def nonzeros_per_cell(self) -> float:
        """That of the counts, which is near enough."""
        return self.source.nonzeros_per_cell

    def rows(self, cells: Positions) -> csr_matrix:
        """The part of the cells at these positions, in their order."""
        part = self.source.rows(cells)
        counts, ends = part.data.astype(np.int64), part.indptr.tolist()
        drawn = np.empty(len(counts), np.float32)
        for cell, (begin, end) in zip(cells.tolist(), pairwise(ends), strict=True):
            generator = np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, 0, cell]))
            drawn[begin:end] = generator.binomial(counts[begin:end], self.share)
        # What the encoder reads has the size that it is used to.
        part.data = drawn if self.judged else (part.data - drawn) / np.float32(1 - self.share)
        part.eliminate_zeros()
        return part


def thinned(source: Source, share: float, rng: np.random.Generator) -> tuple[Source, Source]:
    """A binomial share of each count, and the rest of it scaled to the size that counts had."""
    key = rng.integers(2**64, size=2, dtype=np.uint64)
    return _Part(source, share, judged=True, key=key), _Part(source, share, judged=False, key=key)
