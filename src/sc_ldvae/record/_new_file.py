"""A file of its own, which is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

from sc_ldvae._lazy import array_of, frame_of
from sc_ldvae._quiet import quiet
from sc_ldvae.stores import append_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

_WRITTEN = ".h5ad", ".zarr"
# Numbers of a chunk on disk, and what a file needs beside its values.
_OF_CHUNK, _MORE = 2**18, 1.05


def check_suffix(path: Path) -> None:
    """Refuse a file that is to be of another format than those that are written."""
    if path.suffix not in _WRITTEN:
        msg = f"path: {path.name} has another suffix than {' or '.join(_WRITTEN)}."
        raise ValueError(msg)


@contextmanager
def opened(path: Path, mode: Literal["r", "r+"]) -> Iterator[Any]:
    """The root of such a file."""
    if path.is_dir():
        import zarr

        # anndata refuses to write where the metadata are kept in one place, too; they are to be gathered afterwards.
        yield zarr.open_group(path, mode=mode, use_consolidated=False)
        if mode != "r":
            zarr.consolidate_metadata(path)
    else:
        import h5py

        with h5py.File(path, mode) as root:
            yield root


@contextmanager
def written_whole(path: Path, what: str) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` at the end.

    Raises
    ------
    OSError
        If it can't be written. `path` is what it was.
    """
    try:
        # anndata has something to say of names that repeat, and of the format of zarr that it has by default.
        with quiet(), tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
            written = Path(folder) / path.name
            yield written
            if path.is_dir():
                shutil.rmtree(path)
            written.replace(path)
    except OSError as error:
        msg = f"{what} could not be written to {path}: {error}."
        raise OSError(msg) from error


def write_object(adata: AnnData, path: Path) -> None:
    """Write an object in memory to a file that has such a suffix."""
    if path.suffix == ".h5ad":
        adata.write_h5ad(path)
    else:
        adata.write_zarr(path)


def write_matrix(path: Path, adata: AnnData, genes: NDArray[np.str_], blocks: Iterable[Floats | csr_matrix]) -> None:
    """Write a matrix of the cells of `adata` x genes, which comes in `blocks` of cells, as X of a new file.

    Raises
    ------
    OSError
        If there is no room for it, or if it can't be written.
    """
    obs, var = frame_of(adata.obs), frame_of(adata.var)
    known = var.index.is_unique and np.isin(genes, var.index).all()
    obsm: dict[str, Any] = {key: array_of(value) for key, value in adata.obsm.items()}
    with written_whole(path, "The values") as written:
        var = var.loc[pd.Index(genes)] if known else pd.DataFrame(index=genes)
        write_object(ad.AnnData(obs=obs, var=var, obsm=obsm), written)
        with opened(written, "r+") as root:
            if "X" in root:
                del root["X"]
            start = 0
            for block in blocks:
                if not start:
                    _check_room(path.parent, block, adata.n_obs)
                _append(root, block, start)
                start += block.shape[0]


def _check_room(folder: Path, block: Floats | csr_matrix, n_obs: int) -> None:
    arrays = [block.data, block.indices] if isinstance(block, sparse.csr_matrix) else [block]
    n_bytes = sum(one.nbytes for one in arrays)
    needed, free = _MORE * n_bytes / block.shape[0] * n_obs, shutil.disk_usage(folder).free
    if free < needed:
        msg = f"it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise OSError(msg)


def _append(root: Any, block: Floats | csr_matrix, start: int) -> None:  # noqa: ANN401  h5py and zarr have no types
    if sparse.issparse(block):
        append_rows(root, block)
        return
    n_genes = block.shape[1]
    if not start:
        growing = {"maxshape": (None, n_genes)} if hasattr(root, "file") else {}
        chunks = (max(1, _OF_CHUNK // n_genes), n_genes)
        write_elem(root, "X", block, dataset_kwargs={"chunks": chunks, **growing})
        return
    root["X"].resize((start + len(block), n_genes))
    root["X"][start:] = block
