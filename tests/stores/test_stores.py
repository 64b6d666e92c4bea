"""Counts that stay in files: the same as those in memory, whatever they are stored in."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from sc_ldvae.counts import InMemory, NotCountsError
from sc_ldvae.stores import _backed, _scratch, _survey, source_of
from sc_ldvae.stores._on_disk import OnDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sc_ldvae.counts import Source

N_OBS, N_VARS = 1000, 40
GENES = np.array([5, 3, 39, 20, 0])


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (N_OBS, N_VARS)) * rng.integers(1, 400, (N_OBS, N_VARS))
    counts[[0, 17, 999]] = 0
    return counts.astype(np.float32)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Everything is too large for memory; the folder of temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(_survey, "_FEW", 1000)
    monkeypatch.setattr(_backed, "_NUMBERS", 2000)
    monkeypatch.setattr(_backed, "_SORTED", 3000)
    monkeypatch.setattr(_scratch, "gettempdir", lambda: str(folder))
    return folder


def in_hdf5(counts: Any, path: Path, **kwargs: Any) -> Any:
    ad.AnnData(counts).write_h5ad(path / "counts.h5ad", **kwargs)
    return ad.read_h5ad(path / "counts.h5ad", backed="r").X


def in_zarr(counts: Any, path: Path) -> Any:
    group = zarr.open_group(path / "counts.zarr", mode="w", zarr_format=2)
    write_elem(group, "X", counts)
    return sparse_dataset(group["X"]) if sparse.issparse(counts) else group["X"]


def in_dask(counts: Any, path: Path, *, rows: int = 300) -> Any:
    da = pytest.importorskip("dask.array")
    del path
    blocks = [
        da.from_array(counts[start : start + rows].copy(), chunks=(rows, N_VARS), asarray=False)
        for start in range(0, N_OBS, rows)
    ]
    return da.concatenate(blocks, axis=0)


def lazily(counts: Any, path: Path) -> Any:
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    from anndata.experimental import read_lazy

    in_hdf5(counts, path).group.file.close()
    return read_lazy(path / "counts.h5ad").X


KINDS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any, Path], Any]]] = {
    "csr": (sparse.csr_matrix, in_hdf5),
    "csr-of-int64": (lambda counts: sparse.csr_matrix(counts.astype(np.int64)), in_hdf5),
    "csr-gzip": (sparse.csr_matrix, lambda counts, path: in_hdf5(counts, path, compression="gzip")),
    "csc": (sparse.csc_matrix, in_hdf5),
    "dense": (np.asarray, in_hdf5),
    "zarr-csr": (sparse.csr_matrix, in_zarr),
    "zarr-csc": (sparse.csc_matrix, in_zarr),
    "zarr-dense": (np.asarray, in_zarr),
    "dask-csr": (sparse.csr_matrix, in_dask),
    "dask-dense": (np.asarray, in_dask),
    "lazy-csr": (sparse.csr_matrix, lazily),
}


@pytest.fixture(params=KINDS)
def stored(request: pytest.FixtureRequest, dense: np.ndarray, tmp_path: Path) -> Iterator[Any]:
    convert, store = KINDS[request.param]
    found = store(convert(dense), tmp_path)
    yield found
    close(found)


def close(stored: Any) -> None:
    file = getattr(getattr(stored, "group", stored), "file", None)
    if isinstance(file, h5py.File):
        file.close()


def check_same(source: Source, expected: np.ndarray) -> None:
    """Rows, in any order and number, and what is said of all."""
    assert (source.n_obs, source.n_vars) == expected.shape
    np.testing.assert_array_equal(source.totals, expected.astype(np.float64).sum(1), strict=True)
    assert source.nonzeros_per_cell == np.count_nonzero(expected) / len(expected)
    n, rng = len(expected), np.random.default_rng(0)
    chosen = [
        np.arange(n),
        np.arange(n)[::-1],
        rng.permutation(n)[:300],
        np.arange(0, n, 7),
        np.array([3, 3, n - 1, 0, 17]),
        np.array([], dtype=int),
    ]
    for cells in chosen:
        for rows in (source.rows(cells), source.kept(cells).rows(np.arange(len(cells)))):
            assert (rows.format, rows.dtype, rows.has_canonical_format) == ("csr", np.float32, True)
            np.testing.assert_array_equal(rows.toarray(), expected[cells], strict=True)
        some = np.arange(len(cells))[:5][::-1]
        np.testing.assert_array_equal(source.kept(cells).rows(some).toarray(), expected[cells][some])


@pytest.mark.parametrize("genes", [None, GENES], ids=["all", "some"])
def test_few_counts_are_read_into_memory(genes: np.ndarray | None, stored: Any, dense: np.ndarray) -> None:
    source = source_of(stored, "X", genes)
    assert isinstance(source, InMemory)
    check_same(source, dense if genes is None else dense[:, genes])


@pytest.mark.parametrize("genes", [None, GENES], ids=["all", "some"])
def test_many_counts_stay_on_disk(
    genes: np.ndarray | None, stored: Any, dense: np.ndarray, large: Path, request: pytest.FixtureRequest
) -> None:
    source = source_of(stored, "X", genes)
    assert isinstance(source, OnDisk)
    # Compressed rows of all genes are read where they are.
    in_place = genes is None and request.node.callspec.params["stored"] in {"csr", "csr-of-int64"}
    assert (source.scratch is None) == in_place
    check_same(source, dense if genes is None else dense[:, genes])
    del source
    gc.collect()
    assert not list(large.iterdir())


@pytest.mark.usefixtures("large")
def test_zeros_and_repeated_genes_in_files_are_no_counts(dense: np.ndarray, tmp_path: Path) -> None:
    """As subtractions and concatenations leave them: read in place, with the pointers that the file has."""
    rows, genes = np.nonzero(np.ones_like(dense))
    values = dense[rows, genes]
    # Each count as two parts of it, in any order, and zeros where there is none.
    parts = np.concatenate([np.floor(values / 2), values - np.floor(values / 2)])
    order = np.lexsort((np.random.default_rng(0).random(len(parts)), np.tile(rows, 2)))
    pointers = np.arange(N_OBS + 1) * 2 * N_VARS
    untidy = sparse.csr_matrix((parts[order], np.tile(genes, 2)[order], pointers), shape=dense.shape)
    stored = in_hdf5(untidy, tmp_path)
    source = source_of(stored, "X")
    assert isinstance(source, OnDisk)
    assert source.scratch is None
    check_same(source, dense)
    check_same(source_of(stored, "X", GENES), dense[:, GENES])
    close(stored)


@pytest.mark.parametrize(("value", "what"), [(-1, "negative"), (0.5, "not integers"), (np.nan, "missing or infinite")])
def test_a_bad_value_is_named_with_its_place(
    value: float, what: str, dense: np.ndarray, tmp_path: Path, large: Path
) -> None:
    wrong = dense.copy()
    wrong[901, 20] = value
    stored = in_hdf5(sparse.csr_matrix(wrong), tmp_path)
    for genes, gene in ((None, 20), (GENES, 3)):
        with pytest.raises(
            NotCountsError, match=f"^X holds 1 values that are {what} .* cell 901, gene {gene}"
        ) as caught:
            source_of(stored, "X", genes)
        assert (caught.value.cell, caught.value.gene) == (901, gene)
    close(stored)
    assert not list(large.iterdir())


def change_a_value(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/data"][5000] += 1


def change_a_gene(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/indices"][5000] = N_VARS + 3


def make_it_no_count(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/data"][5000] = -2


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("change", [change_a_value, change_a_gene, make_it_no_count])
def test_a_file_that_changes_meanwhile_is_refused(
    change: Callable[[Path], None], dense: np.ndarray, tmp_path: Path
) -> None:
    stored = in_hdf5(sparse.csr_matrix(dense), tmp_path)
    source = source_of(stored, "X")
    close(stored)
    change(tmp_path / "counts.h5ad")
    with h5py.File(tmp_path / "counts.h5ad") as file:
        source = OnDisk(file["X"], "X", source.found)
        with pytest.raises(OSError, match=r"^X is not on disk any more what it was when it was first read: "):
            source.rows(np.arange(N_OBS))


@pytest.mark.usefixtures("large")
def test_a_file_that_is_truncated_meanwhile_is_refused(dense: np.ndarray, tmp_path: Path) -> None:
    close(in_hdf5(sparse.csr_matrix(np.tile(dense, (50, 1))), tmp_path))
    path = tmp_path / "counts.h5ad"
    # What HDF5 has in its cache, it still has afterwards.
    with h5py.File(path, rdcc_nbytes=0) as opened:
        source = source_of(sparse_dataset(opened["X"]), "X")
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 10)
        with pytest.raises(
            OSError, match=r"^X is not on disk any more what it was when it was first read: .*truncated"
        ):
            source.rows(np.arange(source.n_obs))


@pytest.mark.usefixtures("large")
def test_a_file_that_is_closed_meanwhile_is_refused(dense: np.ndarray, tmp_path: Path) -> None:
    stored = in_hdf5(sparse.csr_matrix(dense), tmp_path)
    source = source_of(stored, "X")
    close(stored)
    with pytest.raises(OSError, match=r"^X is not on disk any more .* closed the file"):
        source.rows(np.arange(3))


def test_a_copy_for_which_there_is_no_room_is_refused_before_it_is_begun(
    dense: np.ndarray, tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = in_hdf5(dense, tmp_path)
    monkeypatch.setattr(_scratch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match=r"^X is read too slowly .* needs \d+\.\d GB, but there are 0\.0 GB in .*TMPDIR"):
        source_of(stored, "X")
    assert not list(large.iterdir())
    close(stored)


def test_a_disk_that_fills_up_leaves_nothing_behind(
    dense: np.ndarray, tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = in_hdf5(dense, tmp_path)

    def full(*_: Any) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(_scratch, "write_elem", full)
    with pytest.raises(OSError, match=r"^X could not be copied .*No space left on device.*TMPDIR"):
        source_of(stored, "X")
    gc.collect()
    assert not list(large.iterdir())
    close(stored)


def test_beside_the_source_there_may_be_room(
    dense: np.ndarray, tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, free = in_hdf5(dense, tmp_path), {large: 0, tmp_path: 10**9}
    monkeypatch.setattr(_scratch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[path]})())
    check_same(source_of(stored, "X"), dense)
    close(stored)


def test_damaged_pointers_are_refused(dense: np.ndarray, tmp_path: Path) -> None:
    stored = in_hdf5(sparse.csr_matrix(dense), tmp_path)
    close(stored)
    with h5py.File(tmp_path / "counts.h5ad", "r+") as file:
        file["X/indptr"][-1] += 5
        with pytest.raises(ValueError, match=r"^X is a damaged sparse matrix: its indptr does not fit to 1000 rows"):
            source_of(sparse_dataset(file["X"]), "X")


@pytest.mark.parametrize(("shape", "error"), [((4,), ValueError), ((4, 5, 6), ValueError)])
def test_arrays_of_other_dimensions_are_refused(shape: tuple[int, ...], error: type, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("X", data=np.ones(shape))
        with pytest.raises(error, match=f"^X has {len(shape)} dimensions"):
            source_of(array, "X")


def test_text_on_disk_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("X", data=[["a", "b"]])
        with pytest.raises(TypeError, match=r"^X has the type object; counts must be numbers"):
            source_of(array, "X")


def test_dask_arrays_of_unknown_size_are_refused() -> None:
    da = pytest.importorskip("dask.array")
    array = da.from_array(np.ones((10, 3)), chunks=(5, 3))
    with pytest.raises(ValueError, match=r"^X is a dask array of unknown size.*compute_chunk_sizes"):
        source_of(array[array[:, 0] > 0], "X")


@pytest.mark.usefixtures("large")
def test_pointers_beyond_32_bits(dense: np.ndarray, tmp_path: Path) -> None:
    """A scratch file counts in 64 bits, whatever the matrix did."""
    stored = in_hdf5(dense, tmp_path)
    source = source_of(stored, "X")
    assert isinstance(source, OnDisk)
    assert source.group["indptr"].dtype == np.int64
    assert source.found.pointers.dtype == np.int64
    close(stored)
