from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sc_ldvae.counts import Cells, Counts, check_counts, check_no_empty_cell, n_minibatches, shuffled


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    draw = np.random.default_rng(0)
    counts = draw.poisson(0.7, (25, 13)) * draw.integers(1, 900, (25, 13))
    counts[4] = 0
    counts[9] = 1
    counts[24] = 0
    return counts.astype(np.float32)


@pytest.fixture(scope="module")
def counts(dense: np.ndarray) -> Counts:
    return Counts.from_csr(sparse.csr_matrix(dense))


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(list(range(25)), id="all"),
        pytest.param(list(range(24, -1, -1)), id="backwards"),
        pytest.param([7], id="one"),
        pytest.param([4], id="one-empty"),
        pytest.param([], id="none"),
        pytest.param([24, 4, 24], id="empty-ones"),
        pytest.param([3, 3, 9, 4, 3, 0, 24, 9], id="repeats"),
    ],
)
def test_tile_is_the_dense_rows(cells: list[int], counts: Counts, dense: np.ndarray) -> None:
    tile = counts.tile(torch.tensor(cells, dtype=torch.int64))
    assert tile.dtype == torch.float32
    np.testing.assert_array_equal(tile.numpy(), dense[cells], strict=True)


@pytest.mark.parametrize("seed", range(5))
def test_tile_of_any_cells(seed: int, counts: Counts, dense: np.ndarray) -> None:
    cells = torch.tensor(np.random.default_rng(seed).integers(25, size=40))
    np.testing.assert_array_equal(counts.tile(cells).numpy(), dense[cells.numpy()], strict=True)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_index_type_does_not_matter(dtype: str, dense: np.ndarray) -> None:
    matrix = sparse.csr_matrix(dense)
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    np.testing.assert_array_equal(Counts.from_csr(matrix).tile(torch.arange(25)).numpy(), dense)


def test_totals_are_the_sums_of_the_rows(counts: Counts, dense: np.ndarray) -> None:
    assert (counts.n_obs, counts.n_vars) == (25, 13)
    assert counts.totals.dtype == torch.float32
    np.testing.assert_array_equal(counts.totals.numpy(), dense.astype(float).sum(1))


def test_totals_are_summed_in_double_precision() -> None:
    # In single precision, ones that are added to 2**24 are lost.
    row = np.ones((1, 1000), dtype=np.float32)
    row[0, 500] = 2**24
    assert Counts.from_csr(sparse.csr_matrix(row)).totals.item() == np.float32(2**24 + 999)


def test_counts_share_the_matrix_memory(dense: np.ndarray) -> None:
    matrix = sparse.csr_matrix(dense)
    assert np.shares_memory(Counts.from_csr(matrix).values.numpy(), matrix.data)


def test_minibatch_holds_what_is_known_of_its_cells(counts: Counts, dense: np.ndarray) -> None:
    cells = Cells(counts, batch_index=torch.arange(25) % 3, cont_covs=torch.arange(50.0).view(25, 2))
    minibatch = cells.minibatch(torch.tensor([6, 2]))
    assert list(minibatch) == ["x", "batch_index", "cont_covs"]
    np.testing.assert_array_equal(minibatch["x"].numpy(), dense[[6, 2]])
    assert minibatch["batch_index"].tolist() == [0, 2]
    assert minibatch["cont_covs"].tolist() == [[12.0, 13.0], [4.0, 5.0]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32, 128, 10_000])
@pytest.mark.parametrize("n_cells", [2, 3, 4, 5, 31, 32, 33, 128, 129, 191, 192, 193, 257, 1000])
def test_shuffled_covers_every_cell_once_in_even_minibatches(n_cells: int, batch_size: int) -> None:
    cells = torch.arange(n_cells) * 3 + 1
    minibatches = list(shuffled(cells, batch_size, torch.Generator().manual_seed(0)))
    sizes = [len(minibatch) for minibatch in minibatches]
    assert sorted(torch.cat(minibatches).tolist()) == cells.tolist()
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == n_minibatches(n_cells, batch_size)
    assert max(sizes) <= max(3, 1.5 * batch_size)
    assert min(sizes) >= min(n_cells, max(2, batch_size * 2 // 3))


def test_shuffled_follows_its_generator() -> None:
    def order(seed: int) -> list[int]:
        return torch.cat(list(shuffled(torch.arange(100), 10, torch.Generator().manual_seed(seed)))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != list(range(100))
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.cat(list(shuffled(torch.arange(100), 10, generator))).tolist() for _ in range(2))
    assert first != second


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csc_array], ids=["dense", "csr", "csc"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_checked_counts_are_canonical_single_precision_csr(convert: type, dtype: str) -> None:
    counts = np.array([[0, 1, 1], [1, 0, 0]]).astype(dtype)
    checked = check_counts(convert(counts), "X")
    assert (checked.format, checked.dtype) == ("csr", np.float32)
    assert checked.has_canonical_format
    np.testing.assert_array_equal(checked.toarray(), counts)


def test_duplicate_entries_of_a_small_type_do_not_overflow() -> None:
    matrix = sparse.csr_matrix((np.array([200, 100], dtype=np.uint8), [1, 1], [0, 2]), shape=(1, 3))
    np.testing.assert_array_equal(check_counts(matrix, "X").toarray(), [[0, 300, 0]])


def test_checking_does_not_change_the_matrix() -> None:
    matrix = sparse.csr_matrix((np.array([2.0, 0, 1, 3]), [1, 0, 1, 2], [0, 3, 4]), shape=(2, 3))
    before = [array.copy() for array in (matrix.data, matrix.indices, matrix.indptr)]
    checked = check_counts(matrix, "X")
    checked.data[:] = -1
    for array, expected in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_parts_of_a_count_may_be_anything_whose_sum_is_a_count() -> None:
    matrix = sparse.csr_matrix((np.array([2.5, 0.5, 3, -3]), [1, 1, 2, 2], [0, 4]), shape=(1, 3))
    checked = check_counts(matrix, "X")
    assert (checked.nnz, checked[0, 1]) == (1, 3)


@pytest.mark.parametrize("matrix", [[[1, 2]], "counts", np.array([["a"]])], ids=["list", "text", "array-of-text"])
def test_other_types_are_refused(matrix: object) -> None:
    with pytest.raises(TypeError, match=r"^layers\['a'\] (is a builtins|has the type)"):
        check_counts(matrix, "layers['a']")


def test_empty_cells_are_counted_and_one_is_named() -> None:
    check_no_empty_cell(np.array([1.0, 5.0]), ["a", "b"], 3, "X")
    with pytest.raises(ValueError, match=r"^2 of 3 cells have no counts in X over the 7 genes .*'b'"):
        check_no_empty_cell(np.array([1.0, 0.0, 0.0]), ["a", "b", "c"], 7, "X")
