"""Several files as one object, of which nothing but annotations is read."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._arguments import door
from sc_ldvae._lazy import frame_of
from sc_ldvae._quiet import quiet
from sc_ldvae._said import said
from sc_ldvae.io._reading import reading

if TYPE_CHECKING:
    from anndata import AnnData

_SHOWN = 3


@door
def open(paths: Any) -> AnnData:  # noqa: A001, ANN401  the name of what it does; paths, or a collection of another package
    """Open counts in one or several files as one object, without reading them.

    What anndata reads lazily, put together: :func:`sc_ldvae.tl.ldvae` and all other functions take it as any other
    object, and read the cells that they need. Results go into the object, never into the files: keep them with
    :func:`sc_ldvae.io.write_result`.

    Parameters
    ----------
    paths
        A ``.h5ad`` or ``.zarr`` file, a list of such files, or a collection of `annbatch`. Genes are matched by name.

    Returns
    -------
    The object of one file. Of several: the counts (X and the layers that all have) as dask arrays, the annotation of
    the cells, one file's after the other's, and what all say alike of the genes, in the order of the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it is none that anndata reads.
    TypeError
        If something else than files is named.
    ValueError
        If there are no files, or if they do not have the same genes. The sentence names some that are missing.
    ImportError
        If dask and xarray are not installed: ``pip install 'sc-ldvae[lazy]'``.

    Examples
    --------
    >>> import tempfile, sc_ldvae
    >>> folder = tempfile.TemporaryDirectory()
    >>> paths = [f"{folder.name}/{i}.h5ad" for i in range(2)]
    >>> for i, path in enumerate(paths):
    ...     sc_ldvae.datasets.simulate(n_obs=100, n_vars=20, n_latent=3, rng=i).write_h5ad(path)
    >>> adata = sc_ldvae.io.open(paths)
    >>> adata.shape
    (200, 20)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.io.write_result(adata, f"{folder.name}/result.h5ad")
    >>> folder.cleanup()
    """
    several = isinstance(paths, Iterable) and not isinstance(paths, str | PathLike)
    stores = list(paths) if several else [paths]
    if not stores:
        msg = "paths names no file. Name one at least."
        raise ValueError(msg)
    parts = [_lazy(store) for store in stores]
    return _joined(parts, [_name_of(store) for store in stores]) if several else parts[0]


def _lazy(store: Any) -> AnnData:  # noqa: ANN401  a path, or a group of zarr
    try:
        import dask  # noqa: F401
        import xarray  # noqa: F401
        from anndata.experimental import read_lazy
    except ImportError as error:
        msg = "To open files without reading them takes dask and xarray: pip install 'sc-ldvae[lazy]'."
        raise ImportError(msg) from error
    if not isinstance(store, str | PathLike):
        if not hasattr(store, "attrs"):
            msg = f"paths names {said(store)}, which is neither a file nor a group of zarr. Give the names of files."
            raise TypeError(msg)
        with quiet():
            return read_lazy(store)
    path = Path(store)
    if not path.exists():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    # Of metadata that are not consolidated, which cost nothing on a disk.
    with reading(path), quiet():
        return read_lazy(str(path))


def _name_of(store: Any) -> str:  # noqa: ANN401  a path, or a group of zarr
    return Path(store).name if isinstance(store, str | PathLike) else str(getattr(store, "name", store))


def _joined(parts: list[AnnData], names: list[str]) -> AnnData:
    import anndata as ad
    import dask.array

    da: Any = dask.array
    genes = parts[0].var_names
    places = [_places(genes, part, name, names[0]) for part, name in zip(parts, names, strict=True)]
    annotations = [
        ad.AnnData(obs=frame_of(part.obs), var=frame_of(part.var).iloc[own])
        for part, own in zip(parts, places, strict=True)
    ]
    # It says so if cells of two files have one name, as cells of two experiments have.
    with quiet():
        joined = ad.concat(annotations, merge="same")

    def stacked(arrays: list[Any]) -> Any:  # noqa: ANN401  dask's arrays
        ordered = [
            array if np.array_equal(own, np.arange(len(own))) else array[:, own]
            for array, own in zip(arrays, places, strict=True)
        ]
        return da.concatenate(ordered, axis=0)

    # From anndata 0.13 on, X is the layer None.
    layers = set.intersection(*(set(map(str, dict(part.layers))) for part in parts)) - {"None"}
    joined.X = stacked([part.X for part in parts])
    for name in sorted(layers):
        joined.layers[name] = stacked([part.layers[name] for part in parts])
    return joined


def _places(genes: Any, part: AnnData, name: str, first: str) -> np.ndarray:  # noqa: ANN401  an index of pandas
    """Where the genes of the first file stand in another one."""
    for index, where in ((genes, first), (part.var_names, name)):
        if not index.is_unique:
            repeated = index[index.duplicated()][0]
            msg = f"paths: var_names of {where} are not unique (for example {said(repeated)}). Make them unique first."
            raise ValueError(msg)
    for index, other, where, beside in ((genes, part.var_names, name, first), (part.var_names, genes, first, name)):
        missing = index.difference(other)
        if len(missing):
            shown = ", ".join(map(said, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
            msg = f"paths: {len(missing)} genes of {beside} are not in {where} ({shown}). Give files of the same genes."
            raise ValueError(msg)
    return part.var_names.get_indexer(genes)
