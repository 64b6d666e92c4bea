"""The random order in which cells are trained on, such that a disk reads it well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from sc_ldvae._typing import Positions

# The most neighbours that are read together, and how many such blocks there have to be in a buffer, at least, for the
# training to do as well as with a full shuffle.
_LARGEST_BLOCK, _BLOCKS = 64, 512
# Cells of which all orders are equally probable: as many as this memory holds, within these limits.
_BYTES, _FEWEST, _MOST = 2**27, 2**13, 2**16
_BYTES_PER_NONZERO = 8


class Permuting(Protocol):
    """What shuffles: a NumPy generator, or anything that permutes as it does."""

    def permutation(self, n: int) -> Positions:
        """The numbers below `n` in random order."""


def buffered(nonzeros_per_cell: float) -> int:
    """How many cells with so many nonzeros each are shuffled at once."""
    return int(np.clip(_BYTES / (_BYTES_PER_NONZERO * max(nonzeros_per_cell, 1.0)), _FEWEST, _MOST))


class Buffer(NamedTuple):
    """Cells that are shuffled with each other."""

    order: Positions
    sizes: Positions
    """Of the minibatches that the order is cut into."""


class Share(NamedTuple):
    """Which of `n` processes asks for its part."""

    rank: int
    n: int


ALL = Share(0, 1)


def buffers_of(n_cells: int, n_minibatches: int, at_once: int, rng: Permuting, share: Share = ALL) -> list[Buffer]:
    """Every one of `n_cells` once, in random order, in minibatches of equal size (to within one cell).

    A buffer has about `at_once` cells. If one has them all, all their orders are equally probable. Else buffers are
    filled with blocks of neighbours in random order, of which the first begins elsewhere every time. Processes with the
    same `rng` get every one buffers of its own, with `n_minibatches` in all.
    """
    n_buffers = min(-(-n_cells // (at_once * share.n)), n_minibatches)
    block = max(1, min(_LARGEST_BLOCK, at_once // _BLOCKS))
    order = np.arange(n_cells) if n_buffers * share.n == 1 else _of_blocks(n_cells, block, rng)
    sizes = np.full(n_minibatches * share.n, n_cells // (n_minibatches * share.n))
    sizes[: n_cells % len(sizes)] += 1
    buffers, start, first = [], 0, 0
    for n_own in (len(some) for some in np.array_split(np.arange(n_minibatches), n_buffers)):
        for rank in range(share.n):
            own = sizes[first : first + n_own]
            first, end = first + n_own, start + int(own.sum())
            shuffled = order[start:end][rng.permutation(end - start)]
            if rank == share.rank:
                buffers.append(Buffer(shuffled, own))
            start = end
    return buffers


def _of_blocks(n_cells: int, size: int, rng: Permuting) -> Positions:
    """Blocks of so many neighbours in random order."""
    offset = int(rng.permutation(size)[0])
    edges = np.unique(np.concatenate([[0], np.arange(offset, n_cells, size), [n_cells]]))
    chosen = rng.permutation(len(edges) - 1)
    starts, sizes = edges[chosen], np.diff(edges)[chosen]
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(n_cells)
