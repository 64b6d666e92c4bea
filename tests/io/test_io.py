from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import h5py
import mudata
import numpy as np
import pytest

from sc_ldvae import datasets, io

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return datasets.simulate(12, 8, 2, n_batches=2)


def write_10x(path: Path, adata: AnnData, symbols: list[str]) -> None:
    """A feature-barcode matrix as Cell Ranger 3 and later write it."""
    features = {
        "id": [f"ENSG{i:011}" for i in range(adata.n_vars)],
        "name": symbols,
        "feature_type": ["Gene Expression"] * adata.n_vars,
        "genome": ["GRCh38"] * adata.n_vars,
    }
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(adata.obs_names.to_list(), dtype="S")
        matrix["data"] = adata.X.data.astype(np.int32)
        matrix["indices"] = adata.X.indices.astype(np.int64)
        matrix["indptr"] = adata.X.indptr.astype(np.int64)
        matrix["shape"] = np.array([adata.n_vars, adata.n_obs], dtype=np.int32)
        for name, values in features.items():
            matrix[f"features/{name}"] = np.array(values, dtype="S")


@pytest.mark.parametrize("as_text", [False, True], ids=["path", "text"])
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_anndata_files(suffix: str, as_text: bool, counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"counts{suffix}"
    (counts.write_zarr if suffix == ".zarr" else counts.write_h5ad)(path)
    back = io.read_counts(str(path) if as_text else path)
    assert not back.isbacked
    assert back.obs_names.tolist() == counts.obs_names.tolist()
    assert back.var_names.tolist() == counts.var_names.tolist()
    assert back.obs["batch"].tolist() == counts.obs["batch"].tolist()
    np.testing.assert_array_equal(back.X.toarray(), counts.X.toarray())


def test_mudata_files(counts: AnnData, tmp_path: Path) -> None:
    mudata.MuData({"rna": counts.copy()}).write_h5mu(tmp_path / "counts.h5mu")
    back = io.read_counts(tmp_path / "counts.h5mu")
    assert isinstance(back, mudata.MuData)
    np.testing.assert_array_equal(back["rna"].X.toarray(), counts.X.toarray())


def test_mudata_files_name_what_they_need(counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mudata.MuData({"rna": counts.copy()}).write_h5mu(tmp_path / "counts.h5mu")
    monkeypatch.setitem(sys.modules, "mudata", None)
    with pytest.raises(ImportError, match=r"^Reading counts\.h5mu needs mudata: pip install 'sc-ldvae\[muon\]'"):
        io.read_counts(tmp_path / "counts.h5mu")


def test_10x_files(counts: AnnData, tmp_path: Path) -> None:
    write_10x(tmp_path / "counts.h5", counts, [f"G{i}" for i in range(8)])
    back = io.read_counts(tmp_path / "counts.h5")
    assert back.var_names.tolist() == [f"G{i}" for i in range(8)]
    np.testing.assert_array_equal(back.X.toarray(), counts.X.toarray())


def test_repeated_symbols_of_10x_files_are_made_unique(
    counts: AnnData, tmp_path: Path, fit_quickly: Callable[..., None]
) -> None:
    write_10x(tmp_path / "counts.h5", counts, ["TBCE", "TBCE", *(f"G{i}" for i in range(6))])
    back = io.read_counts(tmp_path / "counts.h5")
    assert back.var_names.is_unique
    assert back.var_names[0] == "TBCE"
    fit_quickly(back, 2)
    assert "X_ldvae" in back.obsm


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".h5mu", ".h5", ".csv"])
def test_missing_files_are_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^There is no file .*absent\{suffix}"):
        io.read_counts(tmp_path / f"absent{suffix}")


@pytest.mark.parametrize("name", ["counts.csv", "counts", "counts.h5ad.gz", "counts.loom"])
def test_unknown_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("cell,gene\n")
    with pytest.raises(ValueError, match=rf"^{name} has an unknown suffix\. Give a \.h5ad, \.zarr, \.h5mu or"):
        io.read_counts(tmp_path / name)


def test_a_folder_that_is_no_store_is_refused_without_a_warning(tmp_path: Path) -> None:
    """anndata's, of metadata that are not consolidated, is an error in these tests."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(OSError, match=r"can't be read as a .*file"):
        io.open(tmp_path)
