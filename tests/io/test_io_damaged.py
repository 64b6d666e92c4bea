"""Files that are not what their name says end in an OSError that names the file and says what it is."""

from __future__ import annotations

import gzip
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
    adata = datasets.simulate(12, 8, 2, n_batches=2)
    adata.layers["counts"] = adata.X.copy()
    return adata


def empty_hdf5(path: Path, _: AnnData) -> None:
    h5py.File(path, "w").close()


def other_hdf5(path: Path, _: AnnData) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.ones(3)


def loom(path: Path, _: AnnData) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = np.ones((2, 2))
        for name in ("row_attrs", "col_attrs", "layers"):
            file.create_group(name)


def molecules(path: Path, _: AnnData) -> None:
    with h5py.File(path, "w") as file:
        for name in ("barcode_idx", "barcodes", "count", "feature_idx", "gem_group", "umi"):
            file[name] = np.arange(3)


def tenx(path: Path, _: AnnData) -> None:
    with h5py.File(path, "w") as file:
        file["matrix/data"] = np.ones(3)


def h5ad(path: Path, adata: AnnData) -> None:
    adata.write_h5ad(path)


def h5mu(path: Path, adata: AnnData) -> None:
    mudata.MuData({"rna": adata.copy()}).write_h5mu(path)


def text(path: Path, _: AnnData) -> None:
    path.write_text("cell,gene\n")


def page(path: Path, _: AnnData) -> None:
    path.write_text("<!DOCTYPE html><html>404</html>")


def zipped(path: Path, _: AnnData) -> None:
    path.write_bytes(gzip.compress(b"counts"))


def nothing(path: Path, _: AnnData) -> None:
    path.touch()


def folder(path: Path, _: AnnData) -> None:
    path.mkdir()
    (path / "matrix.mtx.gz").touch()


def cut(path: Path, adata: AnnData) -> None:
    adata.write_h5ad(path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu", ".h5", ".zarr"])
@pytest.mark.parametrize(
    ("make", "said", "right"),
    [
        pytest.param(empty_hdf5, "It is an HDF5 file with nothing in it", "", id="empty-hdf5"),
        pytest.param(other_hdf5, "It is an HDF5 file with 'image'", "", id="other-hdf5"),
        pytest.param(loom, "It is a loom file: read it with anndata.io.read_loom", "", id="loom"),
        pytest.param(
            molecules, "molecule_info file of Cell Ranger.*take filtered_feature_bc_matrix", "", id="molecules"
        ),
        pytest.param(h5ad, r"It is an AnnData file: .* ends in \.h5ad", ".h5ad", id="h5ad"),
        pytest.param(h5mu, r"It is a MuData file: .* ends in \.h5mu", ".h5mu", id="h5mu"),
        pytest.param(tenx, "a matrix of 10x Genomics", "", id="10x"),
        pytest.param(text, "It is no HDF5 file", "", id="text"),
        pytest.param(page, "It is a web page", "", id="page"),
        pytest.param(zipped, "It is compressed with gzip: unpack", "", id="gzip"),
        pytest.param(nothing, "It is empty", "", id="nothing"),
        pytest.param(folder, r"It is a folder with 'matrix\.mtx\.gz'", "", id="folder"),
        pytest.param(cut, "It is a damaged HDF5 file, maybe cut off", "", id="cut"),
    ],
)
def test_the_sentence_says_what_the_file_is(
    make: Callable[[Path, AnnData], None], said: str, right: str, suffix: str, counts: AnnData, tmp_path: Path
) -> None:
    if suffix == right:
        pytest.skip("this one can be read")
    path = tmp_path / f"counts{suffix}"
    make(path, counts)
    with pytest.raises(OSError, match=rf"^.*counts\{suffix} can't be read as a \{suffix} file\. .*{said}") as raised:
        io.read_counts(path)
    assert "\n" not in str(raised.value)


def read_or_refused(path: Path) -> bool:
    """Whether it is refused, if in a sentence; other errors come through."""
    try:
        io.read_counts(path)
    except OSError as error:
        assert str(error).startswith(f"{path} can't be read as")  # noqa: PT017  a refusal is one of two right answers
        return True
    return False


@pytest.mark.parametrize("make", [h5ad, h5mu], ids=["h5ad", "h5mu"])
def test_hdf5_files_that_lack_anything(make: Callable[[Path, AnnData], None], counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"counts.{make.__name__}"
    make(path, counts)
    whole, names = path.read_bytes(), []
    with h5py.File(path) as file:
        file.visit(names.append)
    refused = 0
    for name in names:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file[name]
        refused += read_or_refused(path)
    assert refused > len(names) / 3


# A name that is missing is an empty one, and two of those are not unique.
@pytest.mark.filterwarnings("ignore:Observation names are not unique", "ignore:Variable names are not unique")
def test_zarr_folders_that_lack_or_cut_anything(counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "counts.zarr"
    counts.write_zarr(path)
    parts = [path / name for name in ("X", "obs/batch", "var/_index")]
    files = [file for part in parts for file in part.rglob("*") if file.is_file()]
    for file in [*files, *path.glob(".z*"), *path.glob("zarr.json")]:
        whole = file.read_bytes()
        file.write_bytes(b"cut")
        # What describes a part stands in the folder's own description, too.
        assert read_or_refused(path) or not file.name.isdigit(), file
        file.unlink()
        read_or_refused(path)
        file.write_bytes(whole)


@pytest.mark.parametrize("path", [5, None, b"counts.h5ad"], ids=repr)
def test_no_path_is_refused(path: object) -> None:
    with pytest.raises(TypeError, match=r"^path must be text or a path, but is "):
        io.read_counts(path)


def test_warnings_that_are_errors_stay_what_they_are(counts: AnnData, tmp_path: Path) -> None:
    repeated = counts.copy()
    repeated.obs_names = ["cell"] * 12
    repeated.write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(UserWarning, match="Observation names are not unique"):
        io.read_counts(tmp_path / "counts.h5ad")
