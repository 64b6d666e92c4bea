"""Counts on disk give the bits of counts in memory, and results go where they belong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import sparse_dataset
from scipy import sparse

import sc_ldvae
from sc_ldvae._quiet import quiet
from sc_ldvae.counts import _order
from sc_ldvae.record import _file
from sc_ldvae.stores import _survey

if TYPE_CHECKING:
    from collections.abc import Callable

N_OBS, N_VARS = 300, 40


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(N_OBS, N_VARS, 3, n_batches=2, mean_library=300, rng=0)
    adata.obs["side"] = pd.Categorical(["left", "right"] * (N_OBS // 2))
    adata.var["highly_variable"] = np.arange(N_VARS) % 5 > 0
    return adata


def fit(adata: ad.AnnData, **options: Any) -> None:
    sc_ldvae.tl.ldvae(adata, 3, batch_key="batch", max_epochs=3, batch_size=32, n_hidden=16, progress=False, **options)


@pytest.fixture(scope="module")
def fitted(counts: ad.AnnData) -> ad.AnnData:
    adata = counts.copy()
    fit(adata)
    return adata


def backed(adata: ad.AnnData, path: Path, **kwargs: Any) -> ad.AnnData:
    adata.write_h5ad(path / "counts.h5ad", **kwargs)
    return ad.read_h5ad(path / "counts.h5ad", backed="r")


def gzip(adata: ad.AnnData, path: Path) -> ad.AnnData:
    return backed(adata, path, compression="gzip")


def columns(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.X = sparse.csc_matrix(adata.X)
    return backed(adata, path)


def dense(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.X = adata.X.toarray()
    return backed(adata, path)


def in_zarr(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.write_zarr(path / "counts.zarr")
    group = zarr.open_group(path / "counts.zarr", mode="r")
    return ad.AnnData(sparse_dataset(group["X"]), adata.obs, adata.var)


def layer(adata: ad.AnnData, path: Path) -> ad.AnnData:
    """As X of an object that is itself in memory."""
    adata.write_h5ad(path / "counts.h5ad")
    return ad.AnnData(sparse_dataset(h5py.File(path / "counts.h5ad")["X"]), adata.obs, adata.var)


def lazy(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.write_h5ad(path / "counts.h5ad")
    return opened(path / "counts.h5ad")


def two_files(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata[:100].write_h5ad(path / "1.h5ad")
    # Genes in another order.
    adata[100:, ::-1].write_h5ad(path / "2.h5ad")
    return opened([path / "1.h5ad", path / "2.h5ad"])


def collection(adata: ad.AnnData, path: Path) -> ad.AnnData:
    annbatch = pytest.importorskip("annbatch")
    adata.write_zarr(path / "counts.zarr")
    made = annbatch.DatasetCollection(path / "collection.zarr", mode="a")
    # It has what zarr has to say of consolidated metadata.
    with quiet():
        made.add_adatas(
            [path / "counts.zarr"], shuffle=False, shuffle_chunk_size=10, n_obs_per_chunk=16, dataset_size=150
        )
    return opened(made)


def opened(paths: Any) -> ad.AnnData:
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    return sc_ldvae.io.open(paths)


STORES: list[Callable[[ad.AnnData, Path], ad.AnnData]] = [
    backed,
    gzip,
    columns,
    dense,
    in_zarr,
    layer,
    lazy,
    two_files,
    collection,
]


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def stored(request: pytest.FixtureRequest, counts: ad.AnnData, tmp_path: Path) -> ad.AnnData:
    return request.param(counts.copy(), tmp_path)


def check_same(adata: ad.AnnData, expected: ad.AnnData) -> None:
    for key in ("X_ldvae", "X_ldvae_variance"):
        np.testing.assert_array_equal(adata.obsm[key], expected.obsm[key])
    np.testing.assert_array_equal(adata.varm["ldvae_loadings"], expected.varm["ldvae_loadings"])
    np.testing.assert_array_equal(adata.obs["ldvae_library"], expected.obs["ldvae_library"])
    np.testing.assert_array_equal(adata.obs["ldvae_held_out"], expected.obs["ldvae_held_out"])
    assert adata.uns["ldvae"]["checksum"] == expected.uns["ldvae"]["checksum"]


def test_every_store_gives_the_bits_of_memory(stored: ad.AnnData, fitted: ad.AnnData) -> None:
    fit(stored)
    check_same(stored, fitted)


@pytest.fixture
def several_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were millions of cells: nothing is kept in memory, and a buffer holds some of them."""
    monkeypatch.setattr(_survey, "_FEW", 1000)
    monkeypatch.setattr(_order, "_BLOCKS", 12)
    monkeypatch.setattr(_order, "_FEWEST", 100)
    monkeypatch.setattr(_order, "_MOST", 100)


@pytest.mark.usefixtures("several_buffers")
def test_what_is_too_large_for_memory_gives_the_bits_of_memory(stored: ad.AnnData, counts: ad.AnnData) -> None:
    expected = counts.copy()
    fit(expected)
    fit(stored)
    check_same(stored, expected)


@pytest.mark.usefixtures("several_buffers")
def test_all_genes_are_read_in_place(counts: ad.AnnData, tmp_path: Path) -> None:
    expected, disk = counts.copy(), backed(counts.copy(), tmp_path)
    for adata in (expected, disk):
        fit(adata, mask_var=None)
    check_same(disk, expected)


TASKS: dict[str, Callable[[ad.AnnData], Any]] = {
    "project": lambda adata: sc_ldvae.tl.project(adata, adata, key_added="again", progress=False),
    "elbo": lambda adata: sc_ldvae.tl.elbo(adata, progress=False),
    "marginal": lambda adata: sc_ldvae.tl.marginal_log_likelihood(adata, n_samples=3, progress=False),
    "error": lambda adata: sc_ldvae.tl.reconstruction_error(adata, progress=False),
    "deviance": lambda adata: sc_ldvae.tl.explained_deviance(adata, cells="all", progress=False),
    "thinned": lambda adata: sc_ldvae.tl.explained_deviance(adata, cells="all", thinned=0.3, progress=False),
    "rotate": lambda adata: sc_ldvae.tl.rotate(adata, key_added="turned"),
    "expression": lambda adata: sc_ldvae.tl.normalized_expression(adata, genes=["gene1"], progress=False).to_numpy(),
    "counts": lambda adata: sc_ldvae.tl.posterior_predictive(adata, genes=["gene1"], progress=False)[0].toarray(),
    "differences": lambda adata: sc_ldvae.tl.differential_expression(adata, "side", progress=False),
    "stability": lambda adata: sc_ldvae.tl.stability(adata, 2, progress=False),
}


@pytest.mark.usefixtures("several_buffers")
@pytest.mark.parametrize("store", [backed, two_files], ids=["backed", "two_files"])
def test_every_task_gives_the_numbers_of_memory(
    store: Callable[[ad.AnnData, Path], ad.AnnData], counts: ad.AnnData, tmp_path: Path
) -> None:
    expected, adata = counts.copy(), store(counts.copy(), tmp_path)
    fit(expected)
    fit(adata)
    for task in TASKS.values():
        found, wanted = task(adata), task(expected)
        if wanted is not None:
            np.testing.assert_array_equal(found, wanted)
    assert set(adata.uns) == set(expected.uns)
    for name in ("ldvae_explained_deviance", "ldvae_stability"):
        assert adata.uns[name]["checksum"] == expected.uns[name]["checksum"]
    frame, wanted = (sc_ldvae.get.differential_expression(one) for one in (adata, expected))
    pd.testing.assert_frame_equal(frame, wanted)
    np.testing.assert_array_equal(adata.obsm["again"], expected.obsm["X_ldvae"])
    np.testing.assert_array_equal(adata.obsm["turned"], expected.obsm["turned"])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_open_for_reading_is_left_as_it_is(
    counts: ad.AnnData, fitted: ad.AnnData, tmp_path: Path
) -> None:
    adata = backed(counts.copy(), tmp_path)
    before = digest(tmp_path / "counts.h5ad")
    fit(adata)
    sc_ldvae.tl.elbo(adata, key_added="elbo", progress=False)
    sc_ldvae.io.write_result(adata, tmp_path / "result.h5ad")
    adata.file.close()
    assert digest(tmp_path / "counts.h5ad") == before
    result = ad.read_h5ad(tmp_path / "result.h5ad")
    assert result.X is None
    check_same(result, fitted)
    assert "elbo" in result.obs
    np.testing.assert_array_equal(
        sc_ldvae.tl.normalized_expression(result, progress=False),
        sc_ldvae.tl.normalized_expression(fitted, progress=False),
    )


def test_a_file_that_is_open_for_writing_gets_the_results(
    counts: ad.AnnData, fitted: ad.AnnData, tmp_path: Path
) -> None:
    backed(counts.copy(), tmp_path).file.close()
    path = tmp_path / "counts.h5ad"
    adata = ad.read_h5ad(path, backed="r+")
    for _ in range(2):
        # The second time over the first one.
        fit(adata)
        sc_ldvae.tl.differential_expression(adata, "side", progress=False)
    sc_ldvae.tl.normalized_expression(adata, key_added="denoised", progress=False)
    adata.file.close()
    back = ad.read_h5ad(path)
    check_same(back, fitted)
    assert back.obs.columns.tolist() == [*counts.obs.columns, "ldvae_library", "ldvae_held_out", "ldvae_fit"]
    assert back.layers["denoised"].shape == back.shape
    assert len(sc_ldvae.get.differential_expression(back))
    np.testing.assert_array_equal(back.X.toarray(), counts.X.toarray())
    assert sc_ldvae.tl.elbo(back, progress=False) == sc_ldvae.tl.elbo(fitted, progress=False)


def test_a_full_disk_leaves_the_file_and_the_object_has_its_results(
    counts: ad.AnnData, fitted: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed(counts.copy(), tmp_path).file.close()
    path = tmp_path / "counts.h5ad"
    before = digest(path)
    monkeypatch.setattr(_file.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    adata = ad.read_h5ad(path, backed="r+")
    with pytest.raises(
        OSError, match=r"^The results are in the object, but could not be written .* MB, .*write_result"
    ):
        fit(adata)
    check_same(adata, fitted)
    adata.file.close()
    assert digest(path) == before


def test_a_file_that_keeps_frames_in_another_way_is_told_of(
    counts: ad.AnnData, fitted: ad.AnnData, tmp_path: Path
) -> None:
    backed(counts.copy(), tmp_path).file.close()
    adata = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r+")
    del adata.file["obs"].attrs["column-order"]
    with pytest.raises(OSError, match=r"^The results are in the object, but could not be written .*column-order"):
        fit(adata)
    check_same(adata, fitted)
    adata.file.close()


def test_a_result_that_can_not_be_written_leaves_nothing(
    fitted: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(ad.AnnData, "write_h5ad", full)
    with pytest.raises(OSError, match=r"^The result could not be written to .*No space left on device"):
        sc_ldvae.io.write_result(fitted, tmp_path / "result.h5ad")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("several_buffers")
@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (257, -1.0, r"negative \(for example -1 in cell 'cell257', gene 'gene7'\)"),
        (257, 0.5, r"not integers \(for example 0\.5 in cell 'cell257', gene 'gene7'\)"),
        (256, 0.0, r"1 of 300 cells have no counts in X over the 32 genes of the fit \(for example 'cell256'\)"),
    ],
    ids=["negative", "decimals", "empty"],
)
def test_what_is_no_count_is_named_and_nothing_written(
    row: int, value: float, said: str, counts: ad.AnnData, tmp_path: Path
) -> None:
    wrong = counts.copy()
    if value:
        wrong.X = wrong.X.toarray()
        wrong.X[row, 7] = value
    else:
        wrong.X = sparse.diags((np.arange(N_OBS) != row).astype(float)).dot(wrong.X).tocsr()
    wrong.write_h5ad(tmp_path / "counts.h5ad")
    before = digest(tmp_path / "counts.h5ad")
    adata = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r+")
    names = set(adata.obs), set(adata.obsm), set(adata.varm), set(adata.uns)
    with pytest.raises(ValueError, match=said):
        fit(adata)
    assert (set(adata.obs), set(adata.obsm), set(adata.varm), set(adata.uns)) == names
    adata.file.close()
    assert digest(tmp_path / "counts.h5ad") == before


def test_views_of_backed_objects_are_refused(counts: ad.AnnData, fitted: ad.AnnData, tmp_path: Path) -> None:
    view = backed(counts.copy(), tmp_path)[:50]
    with pytest.raises(ValueError, match=r"^data is a view of an object that is backed by a file.*to_memory"):
        fit(view)
    with pytest.raises(ValueError, match=r"^data is a view of an object that is backed by a file.*to_memory"):
        sc_ldvae.tl.project(view, fitted, progress=False)


def test_a_copy_of_a_backed_object_is_refused_at_the_door(counts: ad.AnnData, tmp_path: Path) -> None:
    adata = backed(counts.copy(), tmp_path)
    with pytest.raises(ValueError, match=r"^copy=True was given, but data is backed by a file"):
        fit(adata, copy=True)


def test_files_with_other_genes_are_refused(counts: ad.AnnData, tmp_path: Path) -> None:
    counts.write_h5ad(tmp_path / "1.h5ad")
    counts[:, 3:].copy().write_h5ad(tmp_path / "2.h5ad")
    for order in ("12", "21"):
        said = r"^paths: 3 genes of 1\.h5ad are not in 2\.h5ad \('gene0', 'gene1', 'gene2'\)"
        with pytest.raises(ValueError, match=said):
            opened([tmp_path / f"{i}.h5ad" for i in order])
    with pytest.raises(ValueError, match=r"^paths names no file"):
        opened([])
    with pytest.raises(FileNotFoundError, match=r"^There is no file .*3\.h5ad"):
        opened([tmp_path / "3.h5ad"])


def test_counts_are_not_replaced_by_a_result(fitted: ad.AnnData, tmp_path: Path) -> None:
    fitted.write_h5ad(tmp_path / "counts.h5ad")
    (tmp_path / "notes.h5ad").write_text("no HDF5")
    before = digest(tmp_path / "counts.h5ad")
    for name in ("counts.h5ad", "notes.h5ad"):
        with pytest.raises(ValueError, match=f"{name} exists and holds counts, which would be lost"):
            sc_ldvae.io.write_result(fitted, tmp_path / name)
    assert digest(tmp_path / "counts.h5ad") == before
    with pytest.raises(ValueError, match=r"^path: a\.csv has another suffix than \.h5ad or \.zarr"):
        sc_ldvae.io.write_result(fitted, tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_result_replaces_another_one(suffix: str, fitted: ad.AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"result.{suffix}"
    for _ in range(2):
        sc_ldvae.io.write_result(fitted, path)
    back = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    check_same(back, fitted)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


LARGE = """
import sys
from pathlib import Path
import anndata as ad
import sc_ldvae
from sc_ldvae.assess import _deviance
from sc_ldvae.counts import _order, _source
from sc_ldvae.fit import _canonical, _course, _fit
from sc_ldvae.stores import _backed, _on_disk, _survey

def megabytes(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024

# As small beside these cells as they are beside millions: what is kept in memory, and what is looked at at once.
_survey._FEW, _order._FEWEST, _order._MOST, _backed._NUMBERS, _on_disk._MOST = 2**20, 2**12, 2**12, 2**18, 2**18
_fit.MAX_CELLS = _canonical._CELLS_FOR_ELBO = _canonical._CELLS_FOR_ERRORS = _deviance._CELLS_FOR_NULL = 1000
_deviance._CELLS_FOR_MEAN = _course._WATCHED = _source._READ = 1000
options = {"n_hidden": 16, "max_epochs": 1, "batch_size": 512, "progress": False}
adata = sc_ldvae.datasets.simulate(1000, 400, 3)
sc_ldvae.tl.ldvae(adata, 3, **options)
adata = ad.read_h5ad(sys.argv[1], backed="r")
Path("/proc/self/clear_refs").write_text("5")
before = megabytes("VmRSS")
sc_ldvae.tl.ldvae(adata, 3, **options)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells how much memory was used")
def test_memory_does_not_grow_with_the_counts(tmp_path: Path) -> None:
    n_obs, n_vars, of_cell = 100_000, 400, 160
    rng = np.random.default_rng(0)
    genes = (np.arange(of_cell) * 2 + np.arange(n_obs)[:, None] % 80).astype(np.int32)
    values = rng.integers(1, 4, genes.size).astype(np.float32)
    counts = sparse.csr_matrix((values, genes.ravel(), np.arange(n_obs + 1) * of_cell), shape=(n_obs, n_vars))
    ad.AnnData(counts).write_h5ad(tmp_path / "counts.h5ad")
    command = [sys.executable, "-W", "ignore", "-c", LARGE, str(tmp_path / "counts.h5ad")]
    used = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # The counts take 122 MB, and what is left of each cell in the object 4.
    assert used < 100
