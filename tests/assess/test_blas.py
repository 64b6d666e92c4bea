"""Rotations and scores of many genes: the same whatever BLAS does with its threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sc_ldvae import assess, datasets, get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

RNG = np.random.default_rng(0)
LOADINGS, REFIT = (RNG.standard_normal((2, 30_000, 12)) ** 3).astype(np.float32)
INFORMATION = RNG.gamma(2, 1, 30_000).astype(np.float32)


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(lambda: assess.varimax(LOADINGS, INFORMATION), id="varimax"),
        pytest.param(lambda: assess.promax(LOADINGS, INFORMATION), id="promax"),
        pytest.param(
            lambda: assess.stability(LOADINGS, [REFIT, LOADINGS], [(0, 1)], INFORMATION, halves=True).score, id="score"
        ),
        pytest.param(lambda: assess.spanned(*directions()), id="span"),
    ],
)
def test_threads_of_the_blas_change_no_bit(result: Callable[[], Any]) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    results = []
    for n_threads in (1, 8):
        with threadpoolctl.threadpool_limits(n_threads, user_api="blas"):
            results.append(result())
    np.testing.assert_array_equal(*results)


# The second has more columns than a BLAS multiplies on one thread.
@pytest.mark.parametrize(("n_obs", "n_vars", "n_batches"), [(300, 700, 2), (600, 14, 120)], ids=["genes", "levels"])
def test_a_fit_and_what_follows_it_have_the_same_bits(
    n_obs: int, n_vars: int, n_batches: int, assert_same: Callable[..., None]
) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    raw = datasets.simulate(n_obs, n_vars, 5, n_continuous=1, mean_library=3000)
    raw.obs["batch"] = (np.arange(n_obs) % n_batches).astype(str)
    raw.obs["half"] = np.array(["one", "other"])[np.arange(n_obs) * 2 // n_obs]
    results = []
    for n_threads in (1, 8):
        with threadpoolctl.threadpool_limits(n_threads, user_api="blas"):
            adata = raw.copy()
            tl.ldvae(adata, 10, batch_key="batch", max_epochs=1, n_hidden=8, progress=False)
            tl.associate(adata, ["batch", "covariate1"])
            tl.explained_deviance(adata, "batch", cells="all", progress=False)
            tl.differential_expression(adata, "half", progress=False)
            tl.normalized_expression(adata, key_added="shown", progress=False)
            adata.varm["correlation"] = get.feature_correlation(adata).to_numpy()
            results.append(adata)
    assert_same(*results)


def directions() -> tuple[np.ndarray, np.ndarray]:
    return assess.directions(LOADINGS, INFORMATION), assess.directions(REFIT, INFORMATION)


def test_span_is_the_norm_of_the_projection() -> None:
    own, other = (found[:200] for found in directions())
    other[:, 3], other[:, 4] = other[:, 2], 0
    projected = other @ np.linalg.lstsq(other, own)[0]
    np.testing.assert_allclose(assess.spanned(own, other), np.linalg.norm(projected, axis=0), rtol=1e-9)
