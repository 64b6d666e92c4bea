"""Counts in a dask array, as anndata reads them lazily. Imported when the first one comes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from sc_ldvae.counts import check_numbers, source_of
from sc_ldvae.stores._survey import stretches, surveyed

if TYPE_CHECKING:
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
    # Whole chunks.
    edges = np.cumsum([0, *array.chunks[0]])
    blocks = (array[edges[first] : edges[last]].compute() for first, last in stretches(edges, _CELLS))
    return surveyed(blocks, array.shape, name, genes)
