"""Counts in a dask array, as anndata reads them lazily. Imported when the first one comes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import dask.array as da

from sc_ldvae.counts import check_numbers, source_of
from sc_ldvae.stores._survey import surveyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts import Source

# Cells that are computed at once, if chunks are small.
_CELLS = 2**13


@source_of.register(da.Array)
def _of_dask(array: da.Array, name: str, genes: Positions | None = None) -> Source:
    check_numbers(array, name)
    if any(math.isnan(size) for size in array.shape):
        msg = f"{name} is a dask array of unknown size. Let dask find it out first: .compute_chunk_sizes()."
        raise ValueError(msg)
    blocks = (array[start:stop].compute() for start, stop in _stretches(array.chunks[0]))
    return surveyed(blocks, array.shape, name, genes)


def _stretches(chunks: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Cells of some whole chunks."""
    start = stop = 0
    for size in chunks:
        if stop > start and stop + size - start > _CELLS:
            yield start, stop
            start = stop
        stop += size
    if stop > start:
        yield start, stop
