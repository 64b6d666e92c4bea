from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scanpy as sc
from scipy.special import softmax

from sc_ldvae import datasets

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

# What scanpy ships is rounded to three decimals, and stored in single precision.
TOLERANCE = 0.5e-3 + 10 * np.finfo(np.float32).eps
MANY = {"n_obs": 4000, "n_vars": 30, "n_latent": 3, "mean_library": 300}


@pytest.fixture(scope="module")
def reduced() -> AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sc.datasets.pbmc68k_reduced()


def test_pbmc_gives_scanpys_values_back(pbmc_counts: AnnData, reduced: AnnData) -> None:
    stored = reduced.raw[:, pbmc_counts.var_names].X.toarray().astype(float)
    counts, n_counts = pbmc_counts.X.toarray().astype(float), pbmc_counts.obs["n_counts"].to_numpy()[:, None]

    def log_normalised(counts: np.ndarray) -> np.ndarray:
        return np.log1p(counts / n_counts * 1e4)

    assert (np.abs(log_normalised(counts) - stored) <= TOLERANCE).all()
    # No neighbouring integer would do, so these are the counts.
    assert (np.abs(log_normalised(counts + 1) - stored) > TOLERANCE).all()
    fewer = counts > 0
    assert (np.abs(log_normalised(np.maximum(counts - 1, 0)) - stored) > TOLERANCE)[fewer].all()


def test_pbmc_holds_counts_in_single_precision_csr(pbmc_counts: AnnData) -> None:
    X = pbmc_counts.X
    assert (X.format, X.dtype, X.shape) == ("csr", np.float32, (700, 765))
    assert X.has_canonical_format
    assert (X.data == np.rint(X.data)).all()
    assert X.data.min() == 1
    totals = np.asarray(X.sum(1)).ravel()
    assert (totals > 0).all()
    assert (totals <= pbmc_counts.obs["n_counts"]).all()


def test_pbmc_has_scanpys_labels(pbmc_counts: AnnData, reduced: AnnData) -> None:
    assert pbmc_counts.obs_names.equals(reduced.obs_names)
    assert pbmc_counts.var_names.equals(reduced.var_names)
    assert pbmc_counts.obs.columns.tolist() == ["bulk_labels", "n_counts", "phase"]
    assert (pbmc_counts.obs["bulk_labels"] == reduced.obs["bulk_labels"]).all()
    assert pbmc_counts.obs["bulk_labels"].nunique() == 10


def test_pbmc_holds_nothing_else(pbmc_counts: AnnData) -> None:
    for attribute in ("var", "uns", "obsm", "varm", "obsp", "varp"):
        assert not list(getattr(pbmc_counts, attribute)), attribute
    assert pbmc_counts.raw is None
    assert not pbmc_counts.is_view


def test_pbmc_is_read_anew_each_time(pbmc_counts: AnnData) -> None:
    other = datasets.pbmc68k_counts()
    other.X.data[:] = 0
    assert pbmc_counts.X.data.min() == 1
    assert datasets.pbmc68k_counts().X.data.min() == 1


def true_mean(adata: AnnData) -> np.ndarray:
    """Mean of the counts without zero inflation, from what the object says of itself."""
    eta = adata.obsm["true_latent"] @ adata.varm["true_loadings"].T + adata.var["true_intercept"].to_numpy()
    if "batch" in adata.obs:
        eta += adata.varm["true_batch_effects"][:, adata.obs["batch"].cat.codes].T
    continuous = [key for key in adata.obs if key.startswith("covariate")]
    if continuous:
        eta += adata.obs[continuous].to_numpy() @ adata.varm["true_continuous_effects"].T
    if "true_background" in adata.var:
        return adata.var["true_background"].to_numpy() + np.exp(eta)
    return adata.obs["true_library"].to_numpy()[:, None] * softmax(eta, axis=1)


@pytest.mark.parametrize("design", [{}, {"n_batches": 3, "n_continuous": 2}], ids=["plain", "batches-and-covariates"])
@pytest.mark.parametrize("gene_likelihood", ["nb", "zinb", "poisson", "bernoulli", "nb_background"])
def test_simulated_counts_have_the_stored_mean_and_dispersion(gene_likelihood: str, design: dict[str, int]) -> None:
    few = {"mean_library": 20} if gene_likelihood == "bernoulli" else {}
    adata = datasets.simulate(**MANY | few, **design, gene_likelihood=gene_likelihood, rng=1)
    x, mean = adata.X.toarray().astype(float), true_mean(adata)
    inverse_theta = 1 / adata.var["true_theta"].to_numpy() if "true_theta" in adata.var else 0.0
    kept = 1 / (1 + np.exp(-2)) if gene_likelihood == "zinb" else 1.0
    variance = kept * mean * (1 + mean * (inverse_theta + 1 - kept))
    if gene_likelihood == "bernoulli":
        mean = -np.expm1(-mean)
        variance = mean * (1 - mean)
    # Sums over cells of independent residuals are normal: 30 genes within four standard errors.
    z_mean = (x - kept * mean).sum(0) / np.sqrt(variance.sum(0))
    assert np.abs(z_mean).max() < 4
    squares = (x - kept * mean) ** 2 / variance - 1
    z_variance = squares.mean(0) / (squares.std(0) / np.sqrt(len(x)))
    assert np.abs(z_variance).max() < 5
    assert abs(squares.mean()) < 5 * squares.std() / np.sqrt(squares.size)


def test_zero_inflation_adds_zeros() -> None:
    shares = [(datasets.simulate(**MANY, gene_likelihood=name).X.toarray() == 0).mean() for name in ("nb", "zinb")]
    assert shares[1] - shares[0] > 0.05


def test_the_truth_is_centred_and_ordered() -> None:
    adata = datasets.simulate(**MANY, n_batches=3, n_continuous=2)
    for key in ("true_loadings", "true_batch_effects", "true_continuous_effects"):
        np.testing.assert_allclose(adata.varm[key].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(adata.varm["true_batch_effects"].sum(1), 0, atol=1e-12)
    loadings = datasets.simulate(10, 2000, 5).varm["true_loadings"]
    norms = np.linalg.norm(loadings, axis=0)
    assert (np.diff(norms) < 0).all()
    assert ((loadings**3).sum(0) > 0).all()


@pytest.mark.parametrize("n_continuous", [0, 1, 2])
@pytest.mark.parametrize("n_batches", [1, 2, 4])
def test_shapes_and_names(n_batches: int, n_continuous: int) -> None:
    adata = datasets.simulate(40, 25, 3, n_batches=n_batches, n_continuous=n_continuous)
    assert (adata.X.format, adata.X.dtype, adata.shape) == ("csr", np.float32, (40, 25))
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert adata.obsm["true_latent"].shape == (40, 3)
    shapes = {key: values.shape for key, values in adata.varm.items()}
    expected = {"true_loadings": (25, 3)}
    if n_batches > 1:
        expected["true_batch_effects"] = (25, n_batches)
        assert adata.obs["batch"].cat.categories.tolist() == [f"batch{i}" for i in range(n_batches)]
    if n_continuous:
        expected["true_continuous_effects"] = (25, n_continuous)
    assert shapes == expected
    assert ("batch" in adata.obs) == (n_batches > 1)
    assert [key for key in adata.obs if "covariate" in key] == [f"covariate{i + 1}" for i in range(n_continuous)]


@pytest.mark.parametrize(
    ("likelihood", "expected"), [("nb", True), ("zinb", True), ("poisson", False), ("bernoulli", False)]
)
def test_poisson_has_no_theta(likelihood: str, expected: bool) -> None:
    assert ("true_theta" in datasets.simulate(10, 10, 2, gene_likelihood=likelihood).var) == expected


def test_mean_library_is_the_median_of_the_libraries() -> None:
    adata = datasets.simulate(4000, 5, 1, mean_library=777)
    # The median's standard error is 1.25 * 0.3 / sqrt(4000), 0.6 %.
    assert np.median(adata.obs["true_library"]) == pytest.approx(777, rel=0.03)


@pytest.mark.parametrize("rng", [3, np.random.default_rng], ids=["seed", "generator"])
def test_same_seed_same_data(rng: int | Callable[[int], np.random.Generator], assert_same: Callable[..., None]) -> None:
    one, other = (datasets.simulate(30, 20, 2, n_batches=2, rng=rng if rng == 3 else rng(3)) for _ in range(2))
    assert_same(one, other)
    assert (datasets.simulate(30, 20, 2, n_batches=2, rng=4).X != one.X).nnz > 0


def test_global_seeds_are_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one = datasets.simulate(20, 10, 2)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert (datasets.simulate(20, 10, 2).X != one.X).nnz == 0


@pytest.mark.parametrize("size", ["n_obs", "n_vars", "n_latent", "n_batches"])
def test_sizes_below_one_are_refused(size: str) -> None:
    with pytest.raises(ValueError, match=f"^{size} must be at least 1 and at most 1e\\+12, but is 0"):
        datasets.simulate(**{size: 0})
    with pytest.raises(ValueError, match=f"^{size} must be at least 1 and at most 1e\\+12, but is 1000"):
        datasets.simulate(**{size: 10**300})


def test_unknown_likelihood_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^gene_likelihood='normal' is unknown\. Choose one of 'nb', 'zinb', 'poisson'"
    ):
        datasets.simulate(10, 10, 2, gene_likelihood="normal")


@pytest.mark.parametrize(
    ("argument", "value"),
    [pytest.param("n_continuous", -1, id="n_continuous"), pytest.param("mean_library", -5.0, id="mean_library")],
)
def test_other_impossible_numbers_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must be .*, but is {value}"):
        datasets.simulate(10, 10, 2, **{argument: value})


@pytest.mark.parametrize("n_vars", [1, 2, 7, 10, 11])
@pytest.mark.parametrize("n_latent", [1, 3, 12])
def test_small_sizes_and_more_factors_than_programs(n_vars: int, n_latent: int) -> None:
    adata = datasets.simulate(6, n_vars, n_latent)
    assert adata.varm["true_loadings"].shape == (n_vars, n_latent)
    assert np.isfinite(adata.varm["true_loadings"]).all()
