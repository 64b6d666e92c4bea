"""The file behind a backed AnnData, which gets what the object gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata.io import write_elem

from sc_ldvae.record._plain import leaves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

# What the file needs beside the values, as a share of them and in bytes.
_MORE, _AT_LEAST = 1.1, 2**20


def check_view(adata: AnnData) -> None:
    """Refuse a view of a backed object: anndata reads its cells one by one, and can't give it results of its own."""
    if adata.isbacked and adata.is_view:
        msg = (
            "data is a view of an object that is backed by a file. Write its cells to a file of their own, "
            "data.copy('some.h5ad'), or load them, data.to_memory()."
        )
        raise ValueError(msg)


def has_file_to_write(adata: AnnData) -> bool:
    """Whether the object is backed by a file that is open for writing (``backed='r+'``)."""
    return bool(adata.isbacked and adata.file.is_open and _root(adata).mode != "r")


def write_to_file(adata: AnnData, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what has just been set in `adata` to its file: uns last, which tells that the rest is there.

    Raises
    ------
    OSError
        If it can't be written. The object has its results all the same.
    """
    root = _root(adata)
    path = Path(root.filename)
    try:
        _check_room(path, entries)
        for key in entries.get("uns", {}):
            _remove(root, f"uns/{key}")
        for attribute in sorted(entries, key="uns".__eq__):
            for key, value in entries[attribute].items():
                if attribute in {"obs", "var"}:
                    _write_column(root[attribute], key, getattr(adata, attribute)[key])
                else:
                    _write(root, attribute, key, value)
        root.flush()
    # Full disks, but also files of versions of anndata that kept frames in another way.
    except Exception as error:
        msg = (
            f"The results are in the object, but could not be written to its file {path}: {error}. Make room, and keep "
            "them with sc_ldvae.io.write_result(adata, 'result.h5ad')."
        )
        raise OSError(msg) from error


def _check_room(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    needed = _AT_LEAST + _MORE * sum(np.asarray(one).nbytes for _, one in leaves(entries))
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        msg = f"it needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        raise OSError(msg)


def _root(adata: AnnData) -> Any:  # noqa: ANN401  h5py has no types
    return adata.file["obs"].file


def _remove(root: Any, path: str) -> None:  # noqa: ANN401  h5py has no types
    if path in root:
        del root[path]


def _write(root: Any, attribute: str, key: str, value: Any) -> None:  # noqa: ANN401  h5py has no types
    if attribute not in root:
        write_elem(root, attribute, {})
    _remove(root, f"{attribute}/{key}")
    write_elem(root[attribute], key, value)


def _write_column(frame: Any, key: str, column: pd.Series[Any]) -> None:  # noqa: ANN401  h5py has no types
    """One column, for anndata writes frames as a whole or not at all, and users may have changed others."""
    _remove(frame, key)
    values = column.array if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
    write_elem(frame, key, values)
    order = [str(name) for name in frame.attrs["column-order"]]
    if key not in order:
        frame.attrs["column-order"] = [*order, key]
