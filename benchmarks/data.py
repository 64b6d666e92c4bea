"""The data sets, with the genes, the held-out cells and the labels that every measurement shares."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
from anndata.io import sparse_dataset, write_elem
from scipy.sparse import csr_matrix, vstack
from scipy.special import softmax

import sc_ldvae
from benchmarks.counts import counts_of
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_MIN_CELLS = 3
# Values of the largest dense array that the simulation holds.
_CHUNK = 10_000_000
# Of the large simulation: factors; counts per cell and gene, such that one of twenty is not zero; spread of log totals.
_FACTORS, _COUNTS_PER_GENE, _LIBRARY_SD = 10, 0.06, 0.3
# Values in a piece of its file, about as many as in files that are written as a whole.
_PIECE = 2**14


@dataclass(frozen=True)
class DataSet:
    """Real counts and how they are used."""

    file: str | None
    """Name in the data folder; None for the counts that the package can give by itself."""
    n_genes: int | None
    """Number of most variable genes; None for all genes seen in 3 cells."""
    label: str | None = None
    """Column of obs with the cell types."""
    reference: str = "linear_scvi"
    """Method whose held-out ELBO is to be reached."""


DATA_SETS = {
    "pbmc3k": DataSet("pbmc3k.h5ad", 2000, "louvain"),
    "pbmc10k_1000": DataSet("pbmc10k_citeseq.h5mu", 1000, reference="linear_scvi_tutorial"),
    "pbmc10k_4000": DataSet("pbmc10k_citeseq.h5mu", None),
    "lung": DataSet("lung_2studies_6donors.h5ad", 2000, "cell_type"),
    "kang": DataSet("kang_ifnb_ctrl_stim.h5ad", 2000, "kang_cell_type"),
    "marrow": DataSet("marrow_cd34_palantir.h5ad", 2000, "fateid_cluster"),
    "pbmc3k_all_genes": DataSet("pbmc3k.h5ad", None),
    "pbmc68k": DataSet(None, None, "bulk_labels"),
}


def prepared(name: str, folder: Path | None, out: Path) -> Path | None:
    """File with the chosen genes of a data set, obs['train'] and obs['label']; None where its source is missing.

    Written once, so that the processes that are measured do not choose genes.
    """
    chosen, path = DATA_SETS[name], _path(out, name)
    if path.exists():
        return path
    # Of anndata and scanpy, about the files they read.
    warnings.simplefilter("ignore")
    if chosen.file is None:
        adata = sc_ldvae.datasets.pbmc68k_counts()
    elif folder is None or not (folder / chosen.file).exists():
        print(f"{name} is left out: there is no file {chosen.file} in the data folder ({folder}).")
        return None
    else:
        adata = _read(folder / chosen.file)
    sc.pp.filter_genes(adata, min_cells=_MIN_CELLS)
    if chosen.n_genes is not None:
        sc.pp.highly_variable_genes(adata, n_top_genes=chosen.n_genes, flavor="seurat_v3")
        adata = adata[:, adata.var["highly_variable"]].copy()
    _write(adata, chosen.label, path)
    return path


def simulated(n_obs: int, n_vars: int, out: Path) -> Path:
    """File with simulated cells, one count in ten genes on average, in groups that have their own factors."""
    path = _path(out, f"simulated_{n_obs}x{n_vars}")
    if not path.exists():
        rows = max(1, _CHUNK // n_vars)
        sizes = [min(rows, n_obs - start) for start in range(0, n_obs, rows)]
        parts = [
            sc_ldvae.datasets.simulate(size, n_vars, 10, mean_library=n_vars / 10, rng=i).X
            for i, size in enumerate(sizes)
        ]
        _write(ad.AnnData(csr_matrix(vstack(parts))), None, path)
    return path


def large(n_obs: int, n_vars: int, out: Path, compression: str | None = None) -> Path:
    """File with simulated cells of one model, one of twenty counts not zero: never as a whole in memory."""
    path = _path(out, f"large_{n_obs}x{n_vars}{f'_{compression}' if compression else ''}")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    genes = pd.DataFrame(index=[f"gene{i}" for i in range(n_vars)])
    options = {"chunks": (_PIECE,)} | ({"compression": compression} if compression else {})
    ad.AnnData(var=genes).write_h5ad(unfinished)
    n_written = 0
    with h5py.File(unfinished, "r+") as file:
        for block in _blocks(n_obs, n_vars):
            if n_written:
                sparse_dataset(file["X"]).append(block)
            else:
                write_elem(file, "X", block, dataset_kwargs=options)
            n_written += block.shape[0]
        write_elem(file, "obs", _split(n_written))
    unfinished.replace(path)
    return path


def _blocks(n_obs: int, n_vars: int) -> Iterator[csr_matrix]:
    """Counts of some cells after the others, drawn from the same factors."""
    truth = sc_ldvae.datasets.simulate(1, n_vars, _FACTORS)
    loadings, intercept = truth.varm["true_loadings"], truth.var["true_intercept"].to_numpy()
    dispersion = {"theta": truth.var["true_theta"].to_numpy()}
    draw, rows = np.random.default_rng(0), max(1, _CHUNK // n_vars)
    for start in range(0, n_obs, rows):
        latent = draw.normal(size=(min(rows, n_obs - start), _FACTORS))
        library = _COUNTS_PER_GENE * n_vars * np.exp(draw.normal(0, _LIBRARY_SD, (len(latent), 1)))
        mean = library * softmax(latent @ loadings.T + intercept, axis=1)
        counts = csr_matrix(LIKELIHOODS["nb"].draw(mean, dispersion, [draw] * 3).astype(np.float32))
        # A cell without counts has no library; of few genes some may be such.
        counts = counts[np.diff(counts.indptr) > 0]
        # In 32 bits, pointers would not reach beyond the first two billion counts.
        counts.indptr = counts.indptr.astype(np.int64)
        yield counts


def _split(n_obs: int) -> pd.DataFrame:
    """Which nine tenths of the cells are for training."""
    return pd.DataFrame({"train": ~held_out(n_obs)}, index=[f"cell{i}" for i in range(n_obs)])


def held_out(n_obs: int) -> NDArray[np.bool_]:
    """The tenth of the cells that every measurement keeps back."""
    return np.isin(np.arange(n_obs), np.random.default_rng(0).permutation(n_obs)[: n_obs // 10])


def _path(out: Path, name: str) -> Path:
    return out / "prepared" / f"{name}.h5ad"


def _read(path: Path) -> ad.AnnData:
    if path.suffix == ".h5mu":
        import mudata

        return mudata.read_h5mu(path).mod["rna"]
    return ad.read_h5ad(path)


def _write(adata: ad.AnnData, label: str | None, path: Path) -> None:
    """Counts, labels and which nine tenths of the cells are for training."""
    bare = ad.AnnData(counts_of(adata).astype(np.float32), obs=adata.obs[[]].copy(), var=adata.var[[]].copy())
    bare.obs["train"] = _split(bare.n_obs)["train"].to_numpy()
    if label is not None:
        bare.obs["label"] = adata.obs[label].astype(str).to_numpy()
    # A cell without counts has no library. None of the data sets here loses one, small simulations may.
    bare = bare[np.asarray(bare.X.sum(1)).ravel() > 0].copy()
    path.parent.mkdir(parents=True, exist_ok=True)
    bare.write_h5ad(path)
