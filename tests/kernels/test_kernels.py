"""Compiled functions against SciPy and NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse, special

from sc_ldvae.kernels import _jit, first_other_row, gather_rows, matmul, matmul_transposed, n_slices, sparse_rows
from sc_ldvae.kernels._maximum import maximum
from sc_ldvae.kernels._rising import N_TABULATED, empty_tables, log_rising, tabulate_rising

if TYPE_CHECKING:
    from collections.abc import Callable


@_jit.kernel
def exp_of(x, out):  # noqa: ANN001, ANN201
    for i in range(len(x)):
        out[i] = _jit.exp(x[i])


@_jit.kernel
def log_of(x, out):  # noqa: ANN001, ANN201
    for i in range(len(x)):
        out[i] = _jit.log(x[i])


@_jit.kernel
def log1p_of(x, out):  # noqa: ANN001, ANN201
    for i in range(len(x)):
        out[i] = _jit.log1p(x[i])


@_jit.kernel
def rising_of(x, theta, out):  # noqa: ANN001, ANN201
    for i in range(len(x)):
        out[0, i], out[1, i] = log_rising(x[i], theta[i])


@_jit.kernel
def maximum_of(x, out):  # noqa: ANN001, ANN201
    out[0] = maximum(x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 1e-15)])
@pytest.mark.parametrize(
    ("kernel", "expected", "x"),
    [
        pytest.param(exp_of, np.exp, np.linspace(-87, 88, 4001), id="exp"),
        pytest.param(log_of, np.log, np.geomspace(1e-37, 1e37, 4000), id="log"),
        pytest.param(log1p_of, np.log1p, np.geomspace(1e-20, 1e20, 4000), id="log1p"),
    ],
)
def test_elementary_functions(
    kernel: Callable[..., None], expected: Callable[..., np.ndarray], x: np.ndarray, dtype: type, tolerance: float
) -> None:
    x = x.astype(dtype)
    out = np.empty_like(x)
    kernel(x, out)
    np.testing.assert_allclose(out, expected(x.astype(np.float64)), rtol=tolerance, atol=tolerance)


def test_exp_is_finite_far_outside() -> None:
    x = np.array([-1e4, -200, 200, 1e4], np.float32)
    out = np.empty_like(x)
    exp_of(x, out)
    assert (out[:2] < 1e-37).all()
    assert (out[2:] > 1e38).all()
    assert np.isfinite(out).all()


def test_rising_factorials_and_their_slopes() -> None:
    x, theta = (grid.ravel() for grid in np.meshgrid([1.0, 2, 9, 16, 17, 300, 1e5], np.geomspace(1e-6, 1e8, 30)))
    out = np.empty((2, len(x)))
    rising_of(x, theta, out)
    # Where the two gamma functions of scipy do not cancel; where they do, the product says the same.
    expected = np.where(theta < 1e3, special.gammaln(x + theta) - special.gammaln(theta), out[0])
    np.testing.assert_allclose(out[0], expected, rtol=1e-9, atol=1e-9)
    product = [np.log(t + np.arange(n)).sum() for n, t in zip(x, theta, strict=True)]
    np.testing.assert_allclose(out[0], product, rtol=1e-10)
    slope = [(t / (t + np.arange(n))).sum() for n, t in zip(x, theta, strict=True)]
    np.testing.assert_allclose(out[1], slope, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rising_factorials_of_numbers_near_the_largest(dtype: type) -> None:
    grid = np.meshgrid([1.0, 9, 16, 100, 1e6, 2.0**63, 3e38], [1e-30, 1.0, 1e17, 1e18, 2e19, 1e25, 3e38])
    x, theta = (values.ravel().astype(dtype) for values in grid)
    out = np.empty((2, len(x)))
    rising_of(x, theta, out)
    assert np.isfinite(out).all()
    # Far beyond the counts every term of the product is theta.
    far = theta.astype(np.float64) > 1e9 * x.astype(np.float64)
    np.testing.assert_allclose(out[0, far], x[far] * np.log(theta[far].astype(np.float64)), rtol=1e-7)
    np.testing.assert_allclose(out[1, far], x[far], rtol=1e-7)
    # And far below them Stirling's series is exact.
    below = (x > 1e18) & (theta == 1)
    n = x[below].astype(np.float64)
    np.testing.assert_allclose(out[0, below], special.gammaln(n + 1), rtol=1e-12)
    np.testing.assert_allclose(out[1, below], np.log(n) + np.euler_gamma, rtol=1e-3)


def test_tables_hold_the_small_counts() -> None:
    log_theta = np.random.default_rng(0).normal(size=(2, 5))
    theta = np.exp(log_theta)
    values, slopes = empty_tables(theta)
    tabulate_rising(theta, log_theta, values, slopes)
    x = np.arange(1, N_TABULATED + 1)[:, None]
    np.testing.assert_allclose(values, special.gammaln(x + theta[:, None]) - special.gammaln(theta[:, None]))
    expected = theta[:, None] * (special.digamma(x + theta[:, None]) - special.digamma(theta[:, None]))
    np.testing.assert_allclose(slopes, expected)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_maximum_of_any_length(n: int) -> None:
    for x in np.random.default_rng(n).normal(size=(20, n)):
        out = np.empty(1)
        maximum_of(x, out)
        assert out[0] == x.max()


def test_small_products() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(5, 6))
    np.testing.assert_allclose(matmul(a, b), a @ b)
    np.testing.assert_allclose(matmul_transposed(a, np.ascontiguousarray(b.T)), a @ b)


def test_rows_are_gathered_and_sorted_by_gene() -> None:
    rng = np.random.default_rng(0)
    matrix = sparse.random(30, 12, density=0.3, format="csr", random_state=0)
    matrix.data = rng.integers(1, 2000, matrix.nnz).astype(np.float32)
    chosen = rng.permutation(30)[:9]
    gathered = gather_rows(matrix.indptr.astype(np.int64), matrix.indices, matrix.data.astype(np.float32), chosen)
    rows = sparse_rows(*gathered, 12, log_variational=True)
    own = matrix[chosen].astype(np.float32)
    got = sparse.csr_matrix((rows.counts, rows.genes, rows.indptr), shape=own.shape)
    np.testing.assert_array_equal(got.toarray(), own.toarray())
    by_gene = sparse.csc_matrix((rows.seen_by_gene, rows.cells, rows.gene_indptr), shape=own.shape)
    np.testing.assert_allclose(by_gene.toarray(), np.log1p(own.toarray()), rtol=1e-6)
    np.testing.assert_allclose(rows.totals, own.toarray().sum(1))
    np.testing.assert_allclose(rows.log_factorials, special.gammaln(own.toarray() + 1).sum(1), rtol=1e-6)


def test_parts_are_a_power_of_two_and_grow_with_the_work() -> None:
    parts = [n_slices(work) for work in (0, 1, 65_535, 65_536, 256_000, 10**6, 10**12)]
    assert parts == [1, 1, 1, 2, 4, 16, 16]


@pytest.mark.parametrize(
    ("value", "gene", "row"),
    [
        pytest.param(2.0, 3, 5, id="sound"),
        pytest.param(0.0, 3, 2, id="zero"),
        pytest.param(-2.0, 3, 2, id="negative"),
        pytest.param(2.5, 3, 2, id="decimals"),
        pytest.param(3.0, 3, 2, id="another-total"),
        pytest.param(np.nan, 3, 2, id="nan"),
        pytest.param(np.inf, 3, 2, id="infinite"),
        pytest.param(2.0**31, 3, 2, id="too-large"),
        pytest.param(2.0, 1, 2, id="gene-twice"),
        pytest.param(2.0, 0, 2, id="order"),
        pytest.param(2.0, 6, 2, id="gene-beyond"),
        pytest.param(2.0, -1, 2, id="gene-below"),
    ],
)
def test_first_row_that_is_not_what_it_was(value: float, gene: int, row: int) -> None:
    indptr = np.array([0, 1, 1, 3, 4, 5])
    genes, values = np.array([4, 1, gene, 0, 5], dtype=np.int32), np.array([7, 1, value, 1, 2.0**30], np.float32)
    assert first_other_row(indptr, genes, values, np.array([7.0, 0, 3, 1, 2.0**30]), 6) == row
