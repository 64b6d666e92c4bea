"""Counts from files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from sc_ldvae._arguments import door
from sc_ldvae.io._kinds import has_what_it_needs
from sc_ldvae.io._reading import reading
from sc_ldvae.io._tenx import read_tenx

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Data


_READ = ".h5ad", ".zarr", ".h5mu", ".h5"


@door
def read_counts(path: str | PathLike[str], *, genome: str | None = None) -> Data:
    """Read annotated counts by the file's suffix.

    Parameters
    ----------
    path
        ``.h5ad`` or ``.zarr`` (AnnData), ``.h5mu`` (MuData, needs the extra ``sc-ldvae[muon]``), or ``.h5`` (10x
        Genomics Cell Ranger, and CellBender: their gene expression; repeated gene symbols are made unique).
    genome
        Genome whose genes to read from a ``.h5`` file; all if None, but one must be named where files of Cell Ranger
        before its version 3 hold several.

    Returns
    -------
    AnnData, or MuData from ``.h5mu``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file is not what its suffix says, is damaged, or holds several genomes of which one must be named.
    ValueError
        If the suffix is none of these, or if there is no such genome.
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
    path = _checked(path, genome)
    if path.suffix == ".h5":
        return read_tenx(path, genome)
    readers = {".h5ad": _read_h5ad, ".zarr": _read_zarr, ".h5mu": _read_h5mu}
    with reading(path):
        if path.suffix != ".zarr" and not has_what_it_needs(path):
            msg = f"nothing in it belongs to a {path.suffix} file"
            raise OSError(msg)
        return readers[path.suffix](path)


def _checked(path: object, genome: object) -> Path:
    if not isinstance(path, str | PathLike):
        msg = f"path={path!r} is a {type(path).__name__}, but must be the name of a file."
        raise TypeError(msg)
    path = Path(path)
    if not path.exists():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    if path.suffix not in _READ:
        msg = f"{path.name or path} has an unknown suffix. Give a .h5ad, .zarr, .h5mu or (10x Genomics) .h5 file."
        raise ValueError(msg)
    if genome is not None and not isinstance(genome, str):
        msg = f"genome={genome!r} is a {type(genome).__name__}, but must be the name of a genome."
        raise TypeError(msg)
    if genome is not None and path.suffix != ".h5":
        msg = f"genome={genome!r} was given, but {path.name} has none: only .h5 files of 10x Genomics name genomes."
        raise ValueError(msg)
    return path


def _read_h5ad(path: Path) -> AnnData:
    from anndata import read_h5ad

    return read_h5ad(path)


def _read_zarr(path: Path) -> AnnData:
    from anndata import read_zarr

    return read_zarr(path)


def _read_h5mu(path: Path) -> MuData:
    try:
        import mudata
    except ImportError as error:
        msg = f"Reading {path.name} needs mudata: pip install 'sc-ldvae[muon]'."
        raise ImportError(msg) from error
    return mudata.read_h5mu(path)
