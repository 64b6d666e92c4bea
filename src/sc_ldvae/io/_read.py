"""Counts from files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Data


def read_counts(path: str | PathLike[str]) -> Data:
    """Read annotated counts by the file's suffix.

    Parameters
    ----------
    path
        ``.h5ad`` or ``.zarr`` (AnnData), ``.h5mu`` (MuData, needs the extra ``sc-ldvae[muon]``), or ``.h5`` (10x
        Genomics Cell Ranger; repeated gene symbols are made unique).

    Returns
    -------
    AnnData, or MuData from ``.h5mu``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file is not what its suffix says.
    ValueError
        If the suffix is none of these.
    ImportError
        If the file needs a package that is not installed.

    Examples
    --------
    >>> import tempfile, sc_ldvae
    >>> folder = tempfile.TemporaryDirectory()
    >>> sc_ldvae.datasets.simulate(n_obs=20, n_vars=10).write_h5ad(f"{folder.name}/counts.h5ad")
    >>> sc_ldvae.io.read_counts(f"{folder.name}/counts.h5ad").shape
    (20, 10)
    >>> folder.cleanup()
    """
    path = Path(path)
    readers = {".h5ad": _read_h5ad, ".zarr": _read_zarr, ".h5mu": _read_h5mu, ".h5": _read_10x_h5}
    if not path.exists():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    if path.suffix not in readers:
        msg = f"{path.name} has an unknown suffix. Give a .h5ad, .zarr, .h5mu or (10x Genomics) .h5 file."
        raise ValueError(msg)
    try:
        return readers[path.suffix](path)
    except OSError as error:
        msg = f"{path} can't be read as a {path.suffix} file: {error}"
        raise OSError(msg) from error


def _read_h5ad(path: Path) -> AnnData:
    from anndata import read_h5ad

    return read_h5ad(path)


def _read_zarr(path: Path) -> AnnData:
    from anndata import read_zarr

    return read_zarr(path)


def _read_10x_h5(path: Path) -> AnnData:
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        adata: AnnData = sc.read_10x_h5(path)
    adata.var_names_make_unique()
    return adata


def _read_h5mu(path: Path) -> MuData:
    try:
        import mudata
    except ImportError as error:
        msg = f"Reading {path.name} needs mudata: pip install 'sc-ldvae[muon]'."
        raise ImportError(msg) from error
    return mudata.read_h5mu(path)
