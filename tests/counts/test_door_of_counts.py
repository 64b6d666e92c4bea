"""What is no count, and sparse matrices whose arrays do not fit together, are refused in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

from sc_ldvae.counts import NotCountsError, check_counts, source_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(1.5, (40, 30)).astype(np.float64)


def with_data_of(matrix: sparse.csr_matrix, dtype: str) -> sparse.csr_matrix:
    matrix = matrix.copy()
    matrix.data = matrix.data.astype(dtype)
    return matrix


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f4", ">f8", ">i2", ">u4", "bool"])
@pytest.mark.parametrize("genes", [None, np.array([7, 2])], ids=["all", "some"])
def test_types_that_sparse_matrices_can_not_have_are_read(
    dtype: str, genes: np.ndarray | None, counts: np.ndarray
) -> None:
    counts = np.minimum(counts, 1) if dtype == "bool" else counts
    expected = counts if genes is None else counts[:, genes]
    for matrix in (counts.astype(dtype), with_data_of(sparse.csr_matrix(counts), dtype)):
        checked = check_counts(matrix, "X", genes)
        assert checked.dtype == np.float32
        np.testing.assert_array_equal(checked.toarray(), expected)


def damaged(format_: str, **arrays: Callable[[np.ndarray], np.ndarray]) -> sparse.spmatrix:
    matrix = sparse.random(20, 9, 0.4, random_state=0, format=format_)
    matrix.data = np.ones(matrix.nnz)
    for name, change in arrays.items():
        setattr(matrix, name, change(getattr(matrix, name).copy()))
    return matrix


def put(at: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change


@pytest.mark.parametrize("format_", ["csr", "csc"])
@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        pytest.param({"indices": put(5, 10_000_000)}, "an index is 10000000, but must be from 0 to", id="outside"),
        pytest.param({"indices": put(5, 20)}, "an index is 20, but must be from 0 to", id="just-outside"),
        pytest.param({"indices": put(5, -1)}, "an index is -1, but must be from 0 to", id="negative"),
        pytest.param({"indptr": put(3, 10**6)}, "indptr does not ascend", id="descending"),
        pytest.param({"indptr": put(0, 1)}, "indptr starts at 1", id="start"),
        pytest.param({"indptr": put(-1, 10**6)}, "indptr ends at 1000000", id="beyond"),
        pytest.param({"indptr": lambda a: a[:-1]}, "indptr has", id="short"),
        pytest.param({"indices": lambda a: a[:-1]}, r"indptr ends at (\d+), beside \d+ .* \1 v", id="indices-short"),
        pytest.param({"indices": lambda a: a.astype(float)}, "indices is float64", id="float"),
    ],
)
def test_damaged_sparse_matrices_are_refused_before_they_are_read(
    format_: str, arrays: dict[str, Any], what: str
) -> None:
    for genes in (None, np.array([0, 3])):
        with pytest.raises(ValueError, match=rf"^layers\['a'\] is a damaged sparse matrix: {what}"):
            source_of(damaged(format_, **arrays), "layers['a']", genes)


def test_coordinates_outside_are_refused(counts: np.ndarray) -> None:
    matrix = sparse.coo_matrix(counts)
    matrix.col[3] = 30
    with pytest.raises(ValueError, match="damaged sparse matrix: an index is 30"):
        check_counts(matrix, "X")


def test_blocks_are_read_and_coordinates_outside_of_them_refused(counts: np.ndarray) -> None:
    # 40 x 30 values are 10 x 15 blocks: no other number of blocks takes the last column, and none beyond.
    matrix = sparse.bsr_matrix(counts, blocksize=(4, 2))
    np.testing.assert_array_equal(check_counts(matrix, "X").toarray(), counts)
    matrix.indices[3] = 15
    with pytest.raises(ValueError, match="damaged sparse matrix: an index is 15, but must be from 0 to 14"):
        check_counts(matrix, "X")


def test_nothing_of_a_sparse_matrix_is_read_under_a_mask(counts: np.ndarray) -> None:
    matrix = sparse.csr_matrix(counts)
    matrix.data = np.ma.masked_array(matrix.data, matrix.data > 2)
    with pytest.raises(ValueError, match=r"^X is a masked array, and \d+ of its values are masked"):
        check_counts(matrix, "X")


def test_what_a_matrix_says_of_itself_is_not_believed() -> None:
    matrix = sparse.csr_matrix((np.array([1.0, 2, 5]), [1, 1, 0], [0, 3]), shape=(1, 3))
    matrix.has_canonical_format = True
    np.testing.assert_array_equal(check_counts(matrix, "X").toarray(), [[5, 3, 0]])


def test_room_behind_the_last_row_is_not_read() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 0, 2]]))
    matrix.data, matrix.indices = np.append(matrix.data, -7), np.append(matrix.indices, 99)
    np.testing.assert_array_equal(check_counts(matrix, "X").toarray(), [[1, 0, 2]])


def test_nothing_is_read_under_a_mask(counts: np.ndarray) -> None:
    np.testing.assert_array_equal(check_counts(np.ma.masked_array(counts), "X").toarray(), counts)
    with pytest.raises(ValueError, match=r"^X is a masked array, and \d+ of its values are masked.*X\.filled\(0\)"):
        check_counts(np.ma.masked_array(counts, counts > 2), "X")


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
def test_unsigned_numbers_that_ran_below_zero_are_refused(dtype: type) -> None:
    below_zero = np.array([[3, 3]], dtype) - np.array([[1, 5]], dtype)
    with pytest.raises(ValueError, match=r"1 values that are 2\*\*31 or more .*unsigned"):
        check_counts(below_zero, "X")


@pytest.mark.parametrize("value", [2.0**31, 1e39, 1e300])
def test_counts_beyond_single_precision_are_refused_without_a_warning(value: float) -> None:
    with pytest.raises(ValueError, match=r"2\*\*31 or more"):
        check_counts(np.array([[1, value]]), "X")
    assert check_counts(np.array([[1, 2.0**31 - 200]]), "X").data[1] == 2**31 - 256


def advice_for(matrix: Any) -> str:
    with pytest.raises(NotCountsError) as caught:
        check_counts(matrix, "X")
    return str(caught.value)


def scaled(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(1, keepdims=True) * 1e4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "log", [np.log1p, lambda x: np.log2(1 + x), lambda x: np.log10(1 + x)], ids=["base-e", "base-2", "base-10"]
)
def test_logs_of_scaled_counts_look_log_normalised(log: Callable[..., Any], dtype: str, counts: np.ndarray) -> None:
    for values in (log(scaled(counts)), log(counts)):
        assert "look log-normalised: name the layer" in advice_for(values.astype(dtype))


def test_scaled_counts_look_normalised(counts: np.ndarray) -> None:
    assert "look normalised: name the layer" in advice_for(scaled(counts))


@pytest.mark.parametrize("scale", [1, 40])
def test_corrected_counts_are_to_be_rounded(scale: int, counts: np.ndarray) -> None:
    share = np.random.default_rng(1).uniform(0.8, 1, counts.shape)
    # As from ambient RNA, which is not in every count.
    share[::2, ::2] = 1
    values = sparse.csr_matrix((counts * scale * share).astype(np.float32))
    said = advice_for(values)
    assert "normalised" not in said
    assert "corrected or estimated, round them, adata.X = np.rint(adata.X)" in said
    away = abs(values.data - values.data.round())
    assert f" {100 * (away == 0).mean():.0f} % are integers, and the others {away[away > 0].mean():.2g} away" in said
    np.testing.assert_array_equal(check_counts(np.rint(values), "X").toarray(), values.toarray().round())


def test_recovered_counts_are_shown_with_their_decimals_and_only_need_rounding(counts: np.ndarray) -> None:
    recovered = sparse.csr_matrix((counts * 30 + (counts > 0) * 2e-4).astype(np.float32))
    said = advice_for(recovered)
    example = float(said.split("for example ")[1].split(" in ")[0])
    assert example != round(example)
    assert "within 0.0002 of integers" in said
    assert "round them, adata.X = np.rint(adata.X)." in said
    np.testing.assert_array_equal(check_counts(np.rint(recovered), "X").toarray(), counts * 30)
