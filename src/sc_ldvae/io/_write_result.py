"""What a fit left, in a file without the counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._lazy import frame_of
from sc_ldvae._quiet import quiet

if TYPE_CHECKING:
    from os import PathLike

    from sc_ldvae._typing import Data


@door
def write_result(data: Data, path: str | PathLike[str], *, modality: str | None = None) -> None:
    """Write all of an object but its counts.

    For objects whose counts stay where they are: backed by a file that is open for reading alone, or opened with
    :func:`sc_ldvae.io.open`. What is read back works as every fit does without counts: plots, tables, decoding,
    differential expression, projection onto it.

    Parameters
    ----------
    data
        AnnData, wherever its counts are, or MuData with a `modality`.
    path
        ``.h5ad`` or ``.zarr`` file that gets everything but X, layers and raw. It is there whole, or not at all. A
        result that is there already is replaced, a file with counts is not.
    modality
        Modality of a MuData.

    Returns
    -------
    None: everything is in the file.

    Raises
    ------
    ValueError
        If the suffix is another one, or if the file has counts.
    OSError
        If it can't be written.

    Examples
    --------
    >>> import anndata as ad, tempfile, sc_ldvae
    >>> folder = tempfile.TemporaryDirectory()
    >>> sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3).write_h5ad(f"{folder.name}/counts.h5ad")
    >>> adata = ad.read_h5ad(f"{folder.name}/counts.h5ad", backed="r")
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.io.write_result(adata, f"{folder.name}/result.h5ad")
    >>> sc_ldvae.get.loadings(ad.read_h5ad(f"{folder.name}/result.h5ad")).shape
    (50, 3)
    >>> adata.file.close()
    >>> folder.cleanup()
    """
    import anndata as ad

    adata, path = inputs.pick_modality(data, modality), Path(path)
    record.check_suffix(path)
    if path.exists() and _has_counts(path):
        msg = f"path: {path} exists and holds counts, which would be lost. Name another file."
        raise ValueError(msg)
    entries: dict[str, Any] = {name: dict(getattr(adata, name)) for name in ("obsm", "varm", "obsp", "varp", "uns")}
    with quiet():
        lean = ad.AnnData(obs=frame_of(adata.obs), var=frame_of(adata.var), **entries).to_memory()
    with record.written_whole(path, "The result") as written:
        record.write_object(lean, written)


def _has_counts(path: Path) -> bool:
    try:
        with record.opened(path, "r") as root:
            return any(name in root and root[name].attrs.get("encoding-type") != "null" for name in ("X", "raw"))
    except OSError:
        # It is no such file at all: nobody meant it to be replaced.
        return True
