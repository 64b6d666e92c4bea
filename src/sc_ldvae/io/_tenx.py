"""Matrices of 10x Genomics, as Cell Ranger and what follows its format write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy.sparse import csr_matrix

from sc_ldvae._said import said
from sc_ldvae.io._reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    import h5py

    Columns: TypeAlias = dict[str, np.ndarray]

_COUNTED = "Gene Expression"
# Of a feature: what has another name in var, or no place there.
_NOT_IN_VAR = {"name", "feature_type", "id", "gene_id", "_all_tag_keys"}


def read_tenx(path: Path, genome: str | None) -> AnnData:
    """Counts of gene expression; repeated gene symbols are made unique."""
    import h5py

    with reading(path), h5py.File(path) as file:
        legacy = "matrix" not in file
        groups = _genomes_of_groups(file) if legacy else ["matrix"]
        genomes = groups if legacy else _genomes_of_features(file["matrix"])
    _check_genome(genome, genomes, path, must_choose=legacy)
    with reading(path), h5py.File(path) as file:
        group = file[genome or groups[0]] if legacy else file["matrix"]
        names, var = _legacy_var(group) if legacy else _var(group["features"])
        _check_lengths(names, var)
        adata = _with_positions(group, var)
    if legacy:
        return _named(adata, names)
    kept = _counted(var, genome, path)
    return _named(adata[:, kept].copy(), names[kept])


def _genomes_of_groups(file: h5py.File) -> list[str]:
    """Cell Ranger before its version 3 wrote a matrix for each genome."""
    genomes = [name for name in file if {"barcodes", "gene_names", "data"} <= set(_members(file[name]))]
    if not genomes:
        msg = "there is neither the group 'matrix' nor one of a genome"
        raise OSError(msg)
    return genomes


def _members(group: Any) -> Any:  # noqa: ANN401  a group, or data
    return group if hasattr(group, "keys") else ()


def _genomes_of_features(matrix: h5py.Group) -> list[str]:
    genomes = matrix["features"].get("genome")
    return [] if genomes is None else sorted(set(_text(genomes)))


def _check_genome(genome: str | None, genomes: list[str], path: Path, *, must_choose: bool) -> None:
    known = ", ".join(map(said, genomes)) or "none"
    if genome is not None and genome not in genomes:
        msg = f"genome={genome!r} is not in {path}. Genomes there: {known}."
        raise ValueError(msg)
    if genome is None and must_choose and len(genomes) > 1:
        msg = f"{path} holds a matrix for each of several genomes: {known}. Choose one with genome=."
        raise OSError(msg)


def _text(values: h5py.Dataset) -> np.ndarray:
    import h5py

    is_text = h5py.check_string_dtype(values.dtype) is not None
    return values.asstr("utf-8")[()] if is_text else values[()].astype(str)


def _legacy_var(group: h5py.Group) -> tuple[np.ndarray, Columns]:
    return _text(group["gene_names"]), {"gene_ids": _text(group["genes"])}


def _var(features: h5py.Group) -> tuple[np.ndarray, Columns]:
    """Names of the features, and what else is known of them; probes have genes as well as names."""
    ids = {"gene_ids": "gene_id", "probe_ids": "id"} if "gene_id" in features else {"gene_ids": "id"}
    columns = {ours: _text(features[theirs]) for ours, theirs in ids.items()}
    columns["feature_types"] = _text(features["feature_type"])
    for name, values in features.items():
        if name not in _NOT_IN_VAR and hasattr(values, "dtype"):
            columns[name] = values[()] if values.dtype.kind == "b" else _text(values)
    return _text(features["name"]), columns


def _check_lengths(names: np.ndarray, var: Columns) -> None:
    wrong = [name for name, values in var.items() if values.shape != names.shape]
    if wrong:
        msg = f"{len(names)} names of features, but {var[wrong[0]].size} values of {wrong[0]!r}"
        raise ValueError(msg)


def _with_positions(group: h5py.Group, var: Columns) -> AnnData:
    """Barcodes x features, which are called by their positions until they have names that do not repeat."""
    n_vars, n_obs = group["shape"][()].tolist()
    data = group["data"][()]
    # As scanpy reads them.
    data = data.astype(np.float32) if data.dtype == np.int32 else data
    matrix = csr_matrix((data, group["indices"][()], group["indptr"][()]), shape=(n_obs, n_vars))
    matrix.check_format(full_check=True)
    obs = pd.DataFrame(index=_text(group["barcodes"]))
    if "filtered_barcodes" in group:
        obs["filtered_barcodes"] = group["filtered_barcodes"][()].astype(bool)
    positions = list(map(str, range(len(var["gene_ids"]))))
    return AnnData(matrix, obs=obs, var=pd.DataFrame(var, index=positions))


def _counted(var: Columns, genome: str | None, path: Path) -> np.ndarray:
    """Positions of the genes, of this genome if there is one."""
    kinds = var["feature_types"]
    counted = kinds == _COUNTED
    if not counted.any():
        others = ", ".join(map(said, sorted(set(kinds))))
        msg = f"{path} holds no counts of genes ({_COUNTED!r}), but {others or 'nothing'}."
        raise OSError(msg)
    return np.flatnonzero(counted if genome is None else counted & (var["genome"] == genome))


def _named(adata: AnnData, names: np.ndarray) -> AnnData:
    adata.var_names = make_index_unique(pd.Index(names)).tolist()
    return adata
