"""Matrices of 10x Genomics: against scanpy's reader, and what it does not read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import scanpy as sc

from sc_ldvae import datasets, io

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    AssertSame = Callable[[object, object], None]

SYMBOLS = ["TBCE", "TBCE", "A", "B", "C", "D", "E", "é"]
FEATURES: dict[str, list[Any]] = {
    "id": [f"ENSG{i:011}" for i in range(8)],
    "name": [*SYMBOLS[:-1], "F"],
    "feature_type": ["Gene Expression"] * 6 + ["Antibody Capture"] * 2,
    "genome": ["GRCh38"] * 4 + ["mm10"] * 2 + [""] * 2,
    "pattern": ["x"] * 8,
}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return datasets.simulate(12, 8, 2)


def write_matrix(group: h5py.Group, adata: AnnData, dtype: type = np.int32) -> None:
    group["barcodes"] = np.array(adata.obs_names.to_list(), dtype="S")
    group["data"] = adata.X.data.astype(dtype)
    group["indices"] = adata.X.indices.astype(np.int64)
    group["indptr"] = adata.X.indptr.astype(np.int64)
    group["shape"] = np.array([adata.n_vars, adata.n_obs], dtype=np.int32)


def write(path: Path, adata: AnnData, dtype: type = np.int32, **changed: list[Any] | None) -> Path:
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        write_matrix(matrix, adata, dtype)
        for name, values in (FEATURES | changed).items():
            if values is not None:
                is_text = isinstance(values[0], str)
                matrix[f"features/{name}"] = np.array([v.encode() for v in values] if is_text else values)
        matrix["features/_all_tag_keys"] = np.array([b"genome", b"pattern"])
    return path


def write_legacy(path: Path, adata: AnnData, *genomes: str) -> Path:
    with h5py.File(path, "w") as file:
        for genome in genomes:
            write_matrix(file.create_group(genome), adata)
            file[genome]["genes"] = np.array(FEATURES["id"], dtype="S")
            file[genome]["gene_names"] = np.array([f"{genome}_{name}" for name in FEATURES["name"]], dtype="S")
    return path


def of_scanpy(path: Path, **kwargs: Any) -> AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata: AnnData = sc.read_10x_h5(path, **kwargs)
    adata.var_names_make_unique()
    return adata


@pytest.mark.parametrize("genome", [None, "GRCh38", "mm10"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_read_as_scanpy_reads(
    dtype: type, genome: str | None, counts: AnnData, tmp_path: Path, assert_same: AssertSame
) -> None:
    path = write(tmp_path / "counts.h5", counts, dtype)
    assert_same(io.read_counts(path, genome=genome), of_scanpy(path, genome=genome))


def test_probes_are_read_as_scanpy_reads(counts: AnnData, tmp_path: Path, assert_same: AssertSame) -> None:
    path = write(tmp_path / "counts.h5", counts, gene_id=FEATURES["id"], filtered_probe=[True, False] * 4)
    with h5py.File(path, "r+") as file:
        file["matrix/filtered_barcodes"] = np.arange(12) % 2
    assert_same(io.read_counts(path), of_scanpy(path))


@pytest.mark.parametrize("genome", [None, "hg19"])
def test_legacy_files_are_read_as_scanpy_reads(
    genome: str | None, counts: AnnData, tmp_path: Path, assert_same: AssertSame
) -> None:
    path = write_legacy(tmp_path / "counts.h5", counts, "hg19")
    assert_same(io.read_counts(path, genome=genome), of_scanpy(path, genome=genome))


def test_a_legacy_file_of_two_genomes_asks_for_one(counts: AnnData, tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "counts.h5", counts, "hg19", "mm10")
    with pytest.raises(OSError, match=r"counts\.h5 holds .*'hg19', 'mm10'\. Choose one with genome="):
        io.read_counts(path)
    assert io.read_counts(path, genome="mm10").var_names[2] == "mm10_A"


def test_cellbender_names_no_genome(counts: AnnData, tmp_path: Path) -> None:
    path = write(tmp_path / "counts.h5", counts, genome=None, pattern=None)
    assert io.read_counts(path).shape == (12, 6)
    with pytest.raises(ValueError, match=r"^genome='mm10' is not in .*counts\.h5\. Genomes there: none"):
        io.read_counts(path, genome="mm10")


def test_names_need_not_be_ascii(counts: AnnData, tmp_path: Path) -> None:
    path = write(tmp_path / "counts.h5", counts, name=SYMBOLS, feature_type=["Gene Expression"] * 8)
    assert io.read_counts(path).var_names.tolist() == ["TBCE", "TBCE-1", "A", "B", "C", "D", "E", "é"]


def test_unknown_genomes_are_refused(counts: AnnData, tmp_path: Path) -> None:
    path = write(tmp_path / "counts.h5", counts)
    with pytest.raises(ValueError, match=r"^genome='hg18' is not in .*Genomes there: '', 'GRCh38', 'mm10'\.$"):
        io.read_counts(path, genome="hg18")


def test_genome_is_for_10x_files(counts: AnnData, tmp_path: Path) -> None:
    counts.write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(ValueError, match=r"^genome='mm10' was given, but counts\.h5ad has none"):
        io.read_counts(tmp_path / "counts.h5ad", genome="mm10")
    with pytest.raises(TypeError, match=r"^genome must be text or None, but is 3\."):
        io.read_counts(tmp_path / "counts.h5ad", genome=3)


def test_files_without_genes_are_refused(counts: AnnData, tmp_path: Path) -> None:
    path = write(tmp_path / "counts.h5", counts, feature_type=["Peaks"] * 8)
    with pytest.raises(OSError, match=r"counts\.h5 holds no counts of genes \('Gene Expression'\), but 'Peaks'"):
        io.read_counts(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("matrix/indices", np.array([10**6]), id="index-outside"),
        pytest.param("matrix/indices", np.array([-1]), id="index-below-zero"),
        pytest.param("matrix/indptr", np.zeros(3, dtype=np.int64), id="short-indptr"),
        pytest.param("matrix/shape", np.array([10**9, 12], dtype=np.int32), id="more-genes"),
        pytest.param("matrix/shape", np.array([8, -12], dtype=np.int32), id="negative-shape"),
        pytest.param("matrix/shape", np.array([8], dtype=np.int32), id="half-a-shape"),
        pytest.param("matrix/barcodes", np.array([b"AAAC"]), id="few-barcodes"),
        pytest.param("matrix/features/name", np.array([b"TBCE"]), id="few-names"),
        pytest.param("matrix/features/feature_type", np.array([b"Gene Expression"]), id="few-types"),
        pytest.param("matrix/data", np.array([b"one"]), id="text-for-counts"),
    ],
)
def test_damaged_files_are_refused(name: str, values: np.ndarray, counts: AnnData, tmp_path: Path) -> None:
    path = write(tmp_path / "counts.h5", counts)
    with h5py.File(path, "r+") as file:
        old = file[name][()]
        del file[name]
        file[name] = np.r_[old[:-1], values] if name == "matrix/indices" else values
    with pytest.raises(OSError, match=r"counts\.h5 can't be read as a \.h5 file\. It looks like a matrix of 10x"):
        io.read_counts(path)


def test_files_that_lack_anything_are_refused(counts: AnnData, tmp_path: Path) -> None:
    for name in ("barcodes", "data", "indices", "indptr", "shape", "features", "features/id", "features/name"):
        path = write(tmp_path / "counts.h5", counts)
        with h5py.File(path, "r+") as file:
            del file[f"matrix/{name}"]
        with pytest.raises(OSError, match=r"counts\.h5 can't be read as a \.h5 file\. It looks like a matrix of 10x"):
            io.read_counts(path)
