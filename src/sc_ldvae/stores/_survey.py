"""One pass over counts on disk, in which all of them are checked; afterwards any rows of them are read fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from sc_ldvae.counts import InMemory, NotCountsError, check_counts
from sc_ldvae.stores._on_disk import Found, OnDisk
from sc_ldvae.stores._scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts import Source

# Bytes of counts that are rather kept in memory than read again.
_FEW = 2**27


class Plain(NamedTuple):
    """Compressed rows in an uncompressed HDF5 file, from which any are read fast."""

    group: Any
    pointers: NDArray[np.int64]
    """Where each cell's values begin and end, n_obs + 1."""


def surveyed(
    blocks: Iterable[Any],
    shape: tuple[int, int],
    name: str,
    genes: Positions | None = None,
    *,
    plain: Plain | None = None,
    beside: Path | None = None,
) -> Source:
    """Counts that come in `blocks` of cells: in memory if they are few, else where they are, or in a scratch file.

    Parameters
    ----------
    blocks
        Consecutive cells, in NumPy arrays or SciPy sparse matrices.
    shape
        Cells x genes of all blocks together.
    name
        What messages call them.
    genes
        Positions of the genes to keep, in this order; all if None.
    plain
        Where they are, if they are read fast there.
    beside
        Folder for the scratch file if there is no room for it among the temporary files.

    Raises
    ------
    ValueError, TypeError
        As `check_counts`.
    OSError
        If there is no room for a copy, or if there are fewer cells than there should be.
    """
    n_obs, n_vars = shape[0], shape[1] if genes is None else len(genes)
    totals, lengths = np.zeros(n_obs), np.zeros(n_obs + 1, np.int64)
    in_place = plain if genes is None else None
    few, n_bytes, start = [], 0, 0
    scratch: Scratch | None = None
    try:
        for block in blocks:
            counts = _checked(block, name, genes, start)
            own = slice(start, start + counts.shape[0])
            totals[own], lengths[1:][own] = InMemory(counts).totals, np.diff(counts.indptr)
            start, n_bytes = own.stop, n_bytes + counts.data.nbytes + counts.indices.nbytes
            few.append(counts)
            if n_bytes > _FEW:
                if in_place is None:
                    scratch = scratch or Scratch(n_bytes / start * n_obs, name, beside)
                    for one in few:
                        scratch.append(one)
                few = []
        _check_complete(start, n_obs, name)
        place = in_place if scratch is None else Plain(scratch.group(), np.cumsum(lengths))
    except BaseException:
        if scratch is not None:
            scratch.close()
        raise
    if n_bytes <= _FEW or place is None:
        return InMemory(sparse.vstack(few, format="csr") if few else sparse.csr_matrix((0, n_vars), dtype=np.float32))
    return OnDisk(place.group, name, Found(place.pointers, totals, int(lengths.sum()), n_vars), scratch)


def stretches(ends: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive things, one at least, that have `most` of something at most; `ends` is what has been until each."""
    start, n = 0, len(ends) - 1
    while start < n:
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + most, "right")) - 1)
        yield start, stop
        start = stop


def _check_complete(n_read: int, n_obs: int, name: str) -> None:
    if n_read != n_obs:
        msg = f"{name} should have {n_obs} cells, but {n_read} could be read. Write the file again."
        raise OSError(msg)


def _checked(block: Any, name: str, genes: Positions | None, start: int) -> sparse.csr_matrix:  # noqa: ANN401  either of two
    try:
        return check_counts(block, name, genes)
    except NotCountsError as error:
        error.cell = int(error.cell) + start
        raise
