"""The command ``fit``: from a file of counts to a result, a picture and a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sc_ldvae.cli._at_once import files_of
from sc_ldvae.cli._genes import fitted_genes, select, select_in_modalities
from sc_ldvae.cli._modalities import likelihoods_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Data

logger = logging.getLogger("sc_ldvae")

_OF_FILES = ("command", "counts", "backed", "output", "force", "genome", "raw")
_NOT_FOR_TL = (*_OF_FILES, "n_genes", "gene_symbols", "n_top_genes")
# Of others None says that nothing was asked for.
_MAY_BE_NONE = ("loadings_prior", "mask_var")


def fit(asked: dict[str, Any]) -> None:
    """Read, fit, write.

    Raises
    ------
    ValueError, TypeError, ArithmeticError, OSError, ImportError, MemoryError
        As the functions of the package do.
    """
    import matplotlib as mpl

    # torch and scanpy load here.
    from sc_ldvae import inputs, tl
    from sc_ldvae.fit import place

    mpl.use("Agg")
    asked = asked | {"modalities": likelihoods_of(asked["modalities"])}
    data = _read(asked)
    if asked["gene_symbols"] is not None:
        _check_symbols(data, asked)
    if asked["n_top_genes"] is not None and asked["modalities"] is not None:
        select_in_modalities(data, asked)
    elif asked["n_top_genes"] is not None:
        select(inputs.pick_modality(data, asked["modality"]), asked)
    given = {name: value for name, value in asked.items() if value is not None or name in _MAY_BE_NONE}
    tl.ldvae(data, **{name: value for name, value in given.items() if name not in _NOT_FOR_TL})
    if place()[0] == 0:
        # Of several processes, the first writes.
        _write(data, asked)


def _read(asked: dict[str, Any]) -> Data:
    from sc_ldvae import datasets, io

    if asked["backed"]:
        return _backed(Path(asked["counts"]))
    if asked["counts"] is None:
        data = datasets.pbmc68k_counts()
    else:
        data = io.read_counts(asked["counts"], genome=asked["genome"])
    return _of_raw(data) if asked["raw"] else data


def _backed(counts: Path) -> AnnData:
    """Counts that stay on disk."""
    import anndata as ad

    from sc_ldvae import io

    if counts.suffix == ".h5ad":
        # Where it is plain, it is read in place.
        return ad.read_h5ad(counts, backed="r")
    opened: AnnData = io.open(counts)
    return opened


def _of_raw(data: Data) -> AnnData:
    """What stands in raw, with its genes, and with the cells as they are."""
    raw = getattr(data, "raw", None)
    if raw is None:
        msg = f"--raw was given, but data is a {type(data).__name__} without raw. Leave it out."
        raise ValueError(msg)
    counts: AnnData = raw.to_adata()
    return counts


def _check_symbols(data: Data, asked: dict[str, Any]) -> None:
    """Refuse a column that is not there before the fit, not when it is drawn."""
    from sc_ldvae import inputs
    from sc_ldvae.get import symbols_of

    names = asked["modalities"] or [asked["modality"]]
    symbols_of({name: inputs.pick_modality(data, name) for name in names}, asked["gene_symbols"])


def _write(data: Data, asked: dict[str, Any]) -> None:
    """The result and what people look at, and say what it is."""
    from sc_ldvae import get, pl

    files = files_of(asked["output"])
    where = {"key": asked["key_added"] or "ldvae", "modality": asked["modality"]}
    files.result.parent.mkdir(parents=True, exist_ok=True)
    _write_result(data, files.result, on_disk=asked["backed"])
    named = where | {"gene_symbols": asked["gene_symbols"]}
    pl.loadings(data, n_genes=asked["n_genes"], show=False, save=files.picture, **named)
    get.top_genes(data, asked["n_genes"], **named).to_csv(files.table)

    _log_genes(data, asked, where["key"])
    summary = get.factors(data, **where)
    left, total = (~summary["vanished"]).sum(), summary.attrs["total_explained_deviance"]
    logger.info("%d factors explain %.1f %% of the held-out deviance.", left, 100 * total)
    for path in files:
        logger.info("Wrote %s", path)


def _write_result(data: Any, result: Path, *, on_disk: bool) -> None:  # noqa: ANN401  objects write themselves
    """Beside the file that it may replace, which could be the counts themselves, and then in its place."""
    from sc_ldvae import io, record

    with record.written_whole(result, "The result") as new:
        if on_disk:
            io.write_result(data, new)
        elif new.suffix == ".zarr":
            data.write_zarr(new)
        else:
            data.write(new)


def _log_genes(data: Data, asked: dict[str, Any], key: str) -> None:
    from sc_ldvae import inputs

    if asked["modalities"] is None:
        adata = inputs.pick_modality(data, asked["modality"])
        logger.info(fitted_genes(adata, key, asked["layer"], on_disk=asked["backed"]))
        return
    for name in asked["modalities"]:
        logger.info(fitted_genes(inputs.pick_modality(data, name), key, asked["layer"], f"features of {name}"))
