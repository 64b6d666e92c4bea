"""Sources of counts that stay on disk: what anndata, h5py, zarr and dask leave there. Knows arrays, but no AnnData."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sc_ldvae import counts
from sc_ldvae.stores import _backed  # noqa: F401  registers what anndata leaves on disk
from sc_ldvae.stores._scratch import append_rows

if TYPE_CHECKING:
    from sc_ldvae._typing import Positions

__all__ = ["append_rows", "source_of"]

# Who registers the arrays of packages that take time to import, or that need not be installed.
_LATE = {"dask": "sc_ldvae.stores._dask", "zarr": "sc_ldvae.stores._zarr"}


def source_of(matrix: Any, name: str, genes: Positions | None = None) -> counts.Source:  # noqa: ANN401  the kinds decide
    """The counts in `matrix`, cells x genes, in memory or on disk, as :func:`sc_ldvae.counts.source_of`.

    Raises
    ------
    OSError
        If the file can't be read, or if there is no room for a copy that can be read fast.
    """
    room = _LATE.get(type(matrix).__module__.partition(".")[0])
    if room is not None:
        import_module(room)
    return counts.source_of(matrix, name, genes)
