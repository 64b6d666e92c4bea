from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sc_ldvae.counts import (
    Cells,
    InMemory,
    Subset,
    WithColumns,
    check_counts,
    check_no_empty_cell,
    evenly,
    gene_totals,
    n_minibatches,
    source_of,
    thinned,
)

if TYPE_CHECKING:
    from sc_ldvae.counts import Source


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    draw = np.random.default_rng(0)
    counts = draw.poisson(0.7, (25, 13)) * draw.integers(1, 900, (25, 13))
    counts[4] = 0
    counts[9] = 1
    counts[24] = 0
    return counts.astype(np.float32)


@pytest.fixture(scope="module")
def counts(dense: np.ndarray) -> InMemory:
    return InMemory(sparse.csr_matrix(dense))


def dense_rows(source: Source, cells: np.ndarray) -> np.ndarray:
    rows = source.rows(cells)
    assert rows.format == "csr"
    assert rows.has_canonical_format
    return rows.toarray()


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
def test_rows_are_those_of_the_matrix(cells: list[int], counts: InMemory, dense: np.ndarray) -> None:
    rows = dense_rows(counts, np.array(cells, dtype=int))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, dense[cells], strict=True)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_any_cells(seed: int, counts: InMemory, dense: np.ndarray) -> None:
    cells = np.random.default_rng(seed).integers(25, size=40)
    np.testing.assert_array_equal(dense_rows(counts, cells), dense[cells], strict=True)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_index_type_does_not_matter(dtype: str, dense: np.ndarray) -> None:
    matrix = sparse.csr_matrix(dense)
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    np.testing.assert_array_equal(dense_rows(InMemory(matrix), np.arange(25)), dense)


def test_totals_are_the_sums_of_the_rows(counts: InMemory, dense: np.ndarray) -> None:
    assert (counts.n_obs, counts.n_vars) == (25, 13)
    assert counts.totals.dtype == np.float64
    np.testing.assert_array_equal(counts.totals, dense.astype(float).sum(1))
    library = Cells(counts).library(np.array([3, 9]))
    assert library.dtype == np.float32
    np.testing.assert_array_equal(library, dense[[3, 9]].astype(float).sum(1))


def test_totals_are_summed_in_double_precision() -> None:
    # In single precision, ones that are added to 2**24 are lost.
    row = np.ones((1, 1000), dtype=np.float32)
    row[0, 500] = 2**24
    assert InMemory(sparse.csr_matrix(row)).totals.item() == 2**24 + 999


def test_counts_share_the_matrix_memory(dense: np.ndarray) -> None:
    matrix = sparse.csr_matrix(dense)
    assert np.shares_memory(InMemory(matrix).matrix.data, matrix.data)


def test_minibatch_holds_what_is_known_of_its_cells(counts: InMemory, dense: np.ndarray) -> None:
    cells = Cells(counts, {"batch_index": np.arange(25) % 3, "cont_covs": np.arange(50.0).reshape(25, 2)})
    minibatch = cells.minibatch(np.array([6, 2]))
    assert len(minibatch) == 2
    np.testing.assert_array_equal(minibatch.counts.toarray(), dense[[6, 2]])
    assert list(minibatch.annotations) == ["batch_index", "cont_covs"]
    assert minibatch.annotations["batch_index"].tolist() == [0, 2]
    assert minibatch.annotations["cont_covs"].tolist() == [[12.0, 13.0], [4.0, 5.0]]


def test_chunks_keep_the_order(counts: InMemory, dense: np.ndarray) -> None:
    cells, chosen = Cells(counts, {"labels": np.arange(25)}), np.array([24, 3, 3, 0, 7])
    chunks = list(cells.chunks(chosen, 2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    np.testing.assert_array_equal(sparse.vstack([chunk.counts for chunk in chunks]).toarray(), dense[chosen])
    np.testing.assert_array_equal(np.concatenate([chunk.annotations["labels"] for chunk in chunks]), chosen)


def test_library_is_the_size_factor_where_there_is_one(counts: InMemory) -> None:
    cells = Cells(counts, {"size_factor": np.arange(25.0)})
    assert cells.library(np.array([7, 2])).tolist() == [7, 2]


def orders(n_cells: int, batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Of cells that are told apart by their only count."""
    source = InMemory(sparse.csr_matrix(np.arange(1, 3 * n_cells + 2, dtype=np.float32)[:, None]))
    chosen = np.arange(n_cells) * 3 + 1
    minibatches = Cells(source, {"labels": np.arange(source.n_obs)}).shuffled(chosen, batch_size, rng)
    found = [(minibatch.annotations["labels"], minibatch.counts.toarray()[:, 0]) for minibatch in minibatches]
    assert all(np.array_equal(labels + 1, counts) for labels, counts in found)
    return [labels.tolist() for labels, _ in found]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32, 128, 10_000])
@pytest.mark.parametrize("n_cells", [2, 3, 4, 5, 31, 32, 33, 128, 129, 191, 192, 193, 257, 1000])
def test_shuffled_covers_every_cell_once_in_even_minibatches(n_cells: int, batch_size: int) -> None:
    minibatches = orders(n_cells, batch_size, np.random.default_rng(0))
    sizes = [len(minibatch) for minibatch in minibatches]
    assert sorted(chain.from_iterable(minibatches)) == (np.arange(n_cells) * 3 + 1).tolist()
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == n_minibatches(n_cells, batch_size)
    assert max(sizes) <= max(3, 1.5 * batch_size)
    assert min(sizes) >= min(n_cells, max(2, batch_size * 2 // 3))


def test_shuffled_follows_its_generator() -> None:
    def order(rng: np.random.Generator) -> list[int]:
        return list(chain.from_iterable(orders(100, 10, rng)))

    one, same, other = (order(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one != sorted(one)
    rng = np.random.default_rng(1)
    assert order(rng) != order(rng)


@pytest.mark.parametrize(("n_cells", "at_most"), [(10, 20), (10, 10), (10, 9), (10, 3), (1, 1), (1001, 100)])
def test_evenly_spaced_cells_are_so_many_at_most(n_cells: int, at_most: int) -> None:
    cells = np.arange(n_cells) * 2
    chosen = evenly(cells, at_most)
    assert len(chosen) <= at_most
    assert len(np.unique(np.diff(chosen))) <= 1
    if n_cells <= at_most:
        np.testing.assert_array_equal(chosen, cells)


def test_subset_with_repeated_cells(counts: InMemory, dense: np.ndarray) -> None:
    cells = np.array([9, 3, 9, 4, 0])
    source = Subset(counts, cells)
    assert (source.n_obs, source.n_vars) == (5, 13)
    np.testing.assert_array_equal(source.totals, dense[cells].astype(float).sum(1))
    chosen = np.array([4, 0, 2, 2])
    np.testing.assert_array_equal(dense_rows(source, chosen), dense[cells[chosen]], strict=True)
    np.testing.assert_array_equal(dense_rows(source.kept(chosen), np.array([1, 0])), dense[cells[chosen[[1, 0]]]])


def test_subset_of_cells_takes_their_annotations_along(counts: InMemory, dense: np.ndarray) -> None:
    cells = Cells(counts, {"labels": np.arange(25)}).subset(np.array([9, 3, 9]))
    assert cells.n_obs == 3
    minibatch = cells.minibatch(np.array([2, 1]))
    np.testing.assert_array_equal(minibatch.counts.toarray(), dense[[9, 3]])
    assert minibatch.annotations["labels"].tolist() == [9, 3]
    np.testing.assert_array_equal(cells.library(np.arange(3)), dense[[9, 3, 9]].sum(1))


def test_genes_among_others_have_all_counts(counts: InMemory, dense: np.ndarray) -> None:
    places, cells = np.array([0, *range(2, 13), 19]), np.array([24, 3, 3])
    source = WithColumns(counts, places, 20)
    assert (source.n_obs, source.n_vars) == (25, 20)
    np.testing.assert_array_equal(source.totals, counts.totals)
    expected = np.zeros((3, 20), np.float32)
    expected[:, places] = dense[cells]
    np.testing.assert_array_equal(dense_rows(source, cells), expected, strict=True)
    np.testing.assert_array_equal(dense_rows(source.kept(cells), np.arange(3)), expected, strict=True)


@pytest.mark.parametrize("at_once", [1, 4, 4096])
def test_gene_totals_of_some_cells(at_once: int, counts: InMemory, dense: np.ndarray) -> None:
    cells = np.array([3, 9, 9, 4, 20])
    np.testing.assert_array_equal(gene_totals(counts, cells, at_once), dense[cells].astype(float).sum(0), strict=True)
    np.testing.assert_array_equal(gene_totals(counts, cells[:0], at_once), np.zeros(13), strict=True)
    with_any = gene_totals(counts, cells, at_once, thresholded=True)
    np.testing.assert_array_equal(with_any, (dense[cells] > 0).sum(0).astype(float), strict=True)


def test_gene_totals_are_exact() -> None:
    column = np.ones((1000, 1), dtype=np.float32)
    column[500] = 2**24
    assert gene_totals(InMemory(sparse.csr_matrix(column)), np.arange(1000), 300) == [2**24 + 999]


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_thinned_parts_are_a_binomial_share_and_the_rest(share: float, counts: InMemory, dense: np.ndarray) -> None:
    everyone = np.arange(counts.n_obs)
    sources = thinned(counts, share, np.random.default_rng(0))
    judged, kept = (source.rows(everyone) for source in sources)
    for source, part in zip(sources, (judged, kept), strict=True):
        np.testing.assert_allclose(source.totals, part.toarray().astype(float).sum(1), rtol=1e-12)
        assert (source.n_obs, source.n_vars) == part.shape
        # Cells may be read in any order, and twice.
        some = np.array([7, 3, 3, 12])
        np.testing.assert_array_equal(source.rows(some).toarray(), part.toarray()[some])
        assert (part.dtype, part.shape, part.has_canonical_format) == (np.float32, dense.shape, True)
        assert (part.data > 0).all()
    np.testing.assert_array_equal(judged.data, np.rint(judged.data))
    rest = kept.toarray() * (1 - share)
    np.testing.assert_allclose(judged.toarray() + rest, dense, rtol=1e-6)
    drawn, n = judged.toarray()[dense > 0].astype(int), dense[dense > 0].astype(int)
    # Uniform, if each number is binomial: between the tails below and up to what was drawn.
    at = stats.binom.cdf(drawn - 1, n, share)
    spread = at + np.random.default_rng(1).random(len(n)) * stats.binom.pmf(drawn, n, share)
    assert stats.kstest(spread, "uniform").pvalue > 0.01
    again, other = (thinned(counts, share, np.random.default_rng(seed))[0].rows(everyone) for seed in (0, 1))
    np.testing.assert_array_equal(again.toarray(), judged.toarray())
    assert (other != judged).nnz > 0


def test_thinning_leaves_the_counts(dense: np.ndarray) -> None:
    matrix = sparse.csr_matrix(dense)
    thinned(InMemory(matrix), 0.5, np.random.default_rng(0))[0].rows(np.arange(len(dense)))
    np.testing.assert_array_equal(matrix.toarray(), dense)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix])
def test_source_of_some_genes_in_their_order(convert: type, dense: np.ndarray) -> None:
    matrix = convert(dense.astype(np.int64))
    if isinstance(matrix, sparse.coo_matrix):
        matrix = matrix.tocsr()
    source, genes = source_of(matrix, "X", np.array([12, 0, 5])), dense[:, [12, 0, 5]]
    assert isinstance(source, InMemory)
    np.testing.assert_array_equal(dense_rows(source, np.arange(25)), genes, strict=True)
    np.testing.assert_array_equal(source.totals, genes.astype(float).sum(1))


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
        source_of(matrix, "layers['a']")


def test_an_unknown_type_is_named_beside_what_can_be_read() -> None:
    sentence = (
        r"^X is a pandas\.[\w.]*DataFrame; counts must be in a NumPy array, a SciPy sparse matrix, or a file that "
        r"anndata has opened\. Load them first \(adata\.to_memory\(\)\)\.$"
    )
    for genes in (None, np.array([0])):
        with pytest.raises(TypeError, match=sentence):
            source_of(pd.DataFrame({"gene": [1]}), "X", genes)


def test_empty_cells_are_counted_and_one_is_named() -> None:
    check_no_empty_cell(np.array([1.0, 5.0]), ["a", "b"], 3, "X")
    with pytest.raises(ValueError, match=r"^2 of 3 cells have no counts in X over the 7 genes .*'b'"):
        check_no_empty_cell(np.array([1.0, 0.0, 0.0]), ["a", "b", "c"], 7, "X")
