"""The SVD that fits start from: any number of threads, any data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

import sc_ldvae
from sc_ldvae.fit import _svd
from sc_ldvae.fit._svd import truncated_svd

if TYPE_CHECKING:
    from sc_ldvae.fit._svd import Svd


def svd_of(counts: np.ndarray | sparse.csr_matrix, k: int) -> Svd:
    counts = sparse.csr_matrix(counts, dtype=np.float64)
    return truncated_svd(counts, np.asarray(counts.sum(1)).ravel(), k)


def centred_logs(counts: sparse.csr_matrix) -> np.ndarray:
    library = np.asarray(counts.sum(1), dtype=np.float64)
    logs = np.log1p(counts.toarray() / library * np.median(library))
    return logs - logs.mean(0)


@pytest.mark.parametrize(("n_obs", "n_vars"), [(300, 80), (80, 300)])
def test_subspace_iteration_finds_what_lapack_finds(n_obs: int, n_vars: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = sc_ldvae.datasets.simulate(n_obs, n_vars, 3, mean_library=3000, rng=0).X
    monkeypatch.setattr(_svd, "_MOST_PRODUCTS", 0)
    # Directions come from some of the data first.
    monkeypatch.setattr(_svd, "_SOME", 60)
    got, dense = svd_of(counts, 3), centred_logs(counts)
    values = np.linalg.svd(dense, compute_uv=False)[:3]
    projections = dense @ got.directions
    assert 0.98 < (projections**2).sum() / (values**2).sum() <= 1 + 1e-9
    np.testing.assert_allclose(got.scores * np.sqrt((projections**2).mean(0)), projections, atol=1e-9)
    for columns in (got.scores / np.sqrt(n_obs), got.directions):
        np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-9)


def test_no_blas_is_asked_where_it_would_cut_sums_by_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 2**13 cells or genes, and beyond 2**18 products, threads have changed the bits of ARPACK's vectors."""
    asked: list[tuple[tuple[int, int], int]] = []
    by_arpack = _svd._by_arpack
    monkeypatch.setattr(_svd, "_by_arpack", lambda some, k: asked.append((some.log.shape, k)) or by_arpack(some, k))
    rng = np.random.default_rng(0)
    for shape, k in (((60, 9000), 2), ((9000, 60), 2), ((2000, 30), 12), ((2000, 30), 3)):
        svd_of(rng.poisson(1, shape) + np.eye(*shape), k)
    assert asked == [((2000, 30), 3)]


def test_threads_of_the_blas_change_no_bit() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rng = np.random.default_rng(0)
    counts = sparse.random(9000, 300, 0.05, random_state=0, format="csr")
    counts.data = rng.integers(1, 6, counts.nnz).astype(np.float64)
    counts = sparse.csr_matrix(counts + sparse.csr_matrix(np.ones((9000, 1))) @ sparse.csr_matrix(np.eye(1, 300)))
    one, two = [], []
    for found, n_threads in ((one, 1), (two, 2)):
        with threadpoolctl.threadpool_limits(n_threads, user_api="blas"):
            found.extend(svd_of(counts, 10))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)


DEGENERATE = {
    "one-gene-has-all": np.outer(np.arange(1, 31), np.eye(1, 8)),
    "all-alike": np.ones((30, 8)),
    "proportional": np.outer(np.arange(1, 31), [1, 2, 4, 8]),
    "two-kinds": np.repeat([[5, 1, 1, 3, 2], [1, 5, 1, 2, 3]], 15, 0),
    "three-cells": np.array([[5, 1, 1, 3, 2], [1, 5, 1, 2, 3], [1, 1, 5, 9, 1]]),
}


@pytest.mark.parametrize("counts", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
@pytest.mark.filterwarnings("error")
def test_data_without_variation_are_fitted_with_finite_numbers(counts: np.ndarray, likelihood: str) -> None:
    from anndata import AnnData

    adata = AnnData(counts.astype(np.float32))
    sc_ldvae.tl.ldvae(adata, 2, gene_likelihood=likelihood, max_epochs=2, n_hidden=8, progress=False)
    found = [*adata.obsm.values(), *adata.varm.values(), adata.uns["ldvae"]["explained_deviance"]]
    assert all(np.isfinite(values).all() for values in found)
