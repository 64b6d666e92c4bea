"""Counts that anndata leaves on disk: compressed rows or columns, and dense ones, in HDF5 and zarr."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from sc_ldvae.counts import check_numbers, source_of
from sc_ldvae.stores._survey import Plain, stretches, surveyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts import Source

# Numbers that are read at once, and nonzeros of the cells that columns are sorted into at once.
_NUMBERS, _SORTED = 2**22, 2**24


@source_of.register(CSRDataset)
def _rows(dataset: Any, name: str, genes: Positions | None = None) -> Source:  # noqa: ANN401  anndata's class is private
    check_numbers(dataset, name)
    pointers = _pointers(dataset, name)
    blocks = (dataset[start:stop] for start, stop in stretches(pointers, _NUMBERS))
    plain = Plain(dataset.group, pointers) if _is_plain(dataset.group) else None
    return surveyed(blocks, dataset.shape, name, genes, plain=plain, beside=_folder(dataset.group))


@source_of.register(CSCDataset)
def _columns(dataset: Any, name: str, genes: Positions | None = None) -> Source:  # noqa: ANN401  anndata's class is private
    check_numbers(dataset, name)
    n_genes = dataset.shape[1]
    chosen = np.arange(n_genes) if genes is None else np.unique(genes)
    # The columns come in ascending order, and are brought into the order that was asked for.
    places = None if genes is None else np.searchsorted(chosen, genes)
    blocks = _turned(dataset, _pointers(dataset, name), chosen)
    return surveyed(blocks, (dataset.shape[0], len(chosen)), name, places, beside=_folder(dataset.group))


def dense(array: Any, name: str, genes: Positions | None = None) -> Source:  # noqa: ANN401  of either package
    """Counts of a two-dimensional array on disk."""
    check_numbers(array, name)
    if array.ndim != 2:  # noqa: PLR2004  cells and genes
        msg = f"{name} has {array.ndim} dimensions, but must be cells x genes."
        raise ValueError(msg)
    # Whole chunks, for a chunk that is read in part is read twice.
    of_chunk = array.chunks[0] if array.chunks else 1
    at_once = max(1, _NUMBERS // max(1, array.shape[1]) // of_chunk) * of_chunk
    blocks = (array[start : start + at_once] for start in range(0, array.shape[0], at_once))
    return surveyed(blocks, array.shape, name, genes, beside=_folder(array))


source_of.register(h5py.Dataset, dense)


def _pointers(dataset: Any, name: str) -> NDArray[np.int64]:  # noqa: ANN401  anndata's class is private
    """Where each row, or column, begins and ends among the values."""
    pointers = np.asarray(dataset.group["indptr"][:]).astype(np.int64)
    n = dataset.shape[0 if dataset.format == "csr" else 1]
    n_values = dataset.group["data"].shape[0]
    if len(pointers) != n + 1 or pointers[0] != 0 or (np.diff(pointers) < 0).any() or pointers[-1] > n_values:
        msg = f"{name} is a damaged sparse matrix: its indptr does not fit to {n} rows and {n_values} values."
        raise ValueError(msg)
    return pointers


def _turned(dataset: Any, pointers: NDArray[np.int64], genes: Positions) -> Iterator[sparse.csr_matrix]:  # noqa: ANN401
    """Some rows after the others of compressed columns, each from one pass over the `genes` (ascending)."""
    n_obs, n_nonzeros = dataset.shape[0], int(np.diff(pointers)[genes].sum())
    edges = np.linspace(0, n_obs, -(-n_nonzeros // _SORTED) + 1 if n_nonzeros else 2, dtype=int)
    for begin, end in pairwise(edges.tolist()):
        pieces = []
        for start, stop in stretches(pointers, _NUMBERS):
            wanted = genes[slice(*np.searchsorted(genes, [start, stop]))] - start
            if len(wanted):
                pieces.append(dataset[:, start:stop][:, wanted].tocsr()[begin:end])
        yield sparse.hstack(pieces, format="csr")


def _is_plain(group: Any) -> bool:  # noqa: ANN401  h5py and zarr have no types
    """Whether any rows are read fast: without anything to decode."""
    arrays = [group[name] for name in ("data", "indices")]
    return all(isinstance(one, h5py.Dataset) and one.id.get_create_plist().get_nfilters() == 0 for one in arrays)


def _folder(stored: Any) -> Path | None:  # noqa: ANN401  h5py and zarr have no types
    """Where the file is."""
    return Path(stored.file.filename).parent if isinstance(stored, h5py.Dataset | h5py.Group) else None
