"""A file beside which nothing else is kept: counts in the form that is read fastest, for as long as somebody reads."""

from __future__ import annotations

import shutil
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy.sparse import csr_matrix

# What the file system wants beside the counts.
_MORE = 1.05


class Scratch:
    """An uncompressed h5ad file with counts in compressed rows, which is gone when nobody refers to it any more.

    Parameters
    ----------
    n_bytes
        How many it will take.
    name
        What messages call the counts that are copied.
    beside
        Folder to take if there is no room in that for temporary files.

    Raises
    ------
    OSError
        If there is no room in either, or while it is written.
    """

    def __init__(self, n_bytes: float, name: str, beside: Path | None) -> None:
        self._name = name
        folder = _with_room(n_bytes * _MORE, name, [Path(gettempdir()), *([] if beside is None else [beside])])
        place = TemporaryDirectory(prefix="sc-ldvae-", dir=folder, ignore_cleanup_errors=True)
        self._file = h5py.File(Path(place.name) / "counts.h5ad", "w")
        self.close = weakref.finalize(self, _remove, self._file, place)
        # Where a file that is open can be removed, nothing is left of it, however the process ends.
        with suppress(OSError):
            (Path(place.name) / "counts.h5ad").unlink()
            Path(place.name).rmdir()

    def append(self, counts: csr_matrix) -> None:
        """Further cells."""
        with self._writing():
            append_rows(self._file, counts)

    def group(self) -> Any:  # noqa: ANN401  h5py has no types
        """The counts, once they are all there."""
        with self._writing():
            self._file.flush()
        return self._file["X"]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            self.close()
            msg = (
                f"{self._name} could not be copied to a temporary file: {error}. Make room in {gettempdir()}, or name "
                "a folder with more in the environment variable TMPDIR."
            )
            raise OSError(msg) from error


def append_rows(root: Any, rows: csr_matrix) -> None:  # noqa: ANN401  h5py and zarr have no types
    """Further rows of X, or the first ones."""
    if "X" in root:
        written: Any = sparse_dataset(root["X"])
        written.append(rows)
    else:
        # In 32 bits, pointers would not reach beyond the first two billion values.
        first = sparse.csr_matrix(rows)
        first.indptr = first.indptr.astype(np.int64)
        write_elem(root, "X", first)


def _with_room(n_bytes: float, name: str, folders: list[Path]) -> Path:
    free = [shutil.disk_usage(folder).free for folder in folders]
    for folder, room in zip(folders, free, strict=True):
        if room >= n_bytes:
            return folder
    found = " and ".join(f"{room / 1e9:.1f} GB in {folder}" for folder, room in zip(folders, free, strict=True))
    msg = (
        f"{name} is read too slowly where it is, and a temporary copy of it needs {n_bytes / 1e9:.1f} GB, but there "
        f"are {found}. Name a folder with more room in the environment variable TMPDIR, or write the counts to an "
        "uncompressed h5ad file in compressed rows (CSR), which needs no copy."
    )
    raise OSError(msg)


def _remove(file: h5py.File, place: TemporaryDirectory[str]) -> None:
    # What can't be closed, on a full disk, is to be removed none the less.
    with suppress(OSError, RuntimeError):
        file.close()
    place.cleanup()
