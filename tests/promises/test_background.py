"""Surface proteins: foreground and background by the stored arrays, and all that follows a fit without library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.optimize import linear_sum_assignment

import sc_ldvae
from sc_ldvae import get, io, pl, tl

if TYPE_CHECKING:
    from pathlib import Path

LIKELIHOOD = "nb_background"
QUIET: dict[str, Any] = {"progress": False}
LOADINGS = ("ldvae_loadings", "true_loadings")


@pytest.fixture(scope="module")
def once() -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(800, 24, 3, n_batches=2, gene_likelihood=LIKELIHOOD, rng=1)
    # Proteins say nothing of cells that were not stained, but such cells are no error.
    counts = adata.X.toarray()
    counts[:2] = 0
    adata.X = sparse.csr_matrix(counts)
    tl.ldvae(adata, 3, gene_likelihood=LIKELIHOOD, dispersion="gene-batch", batch_key="batch", **QUIET)
    return adata


@pytest.fixture
def fitted(once: ad.AnnData) -> ad.AnnData:
    return once.copy()


def parameters_of(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """By the formula of the documentation, from the stored arrays."""
    stored, batch = adata.uns["ldvae"]["decoder"], adata.obs["batch"].cat.codes.to_numpy()
    effects = np.asarray(stored["covariate_effects"], np.float64)[:, batch].T
    foreground = np.exp(adata.obsm["X_ldvae"].astype(np.float64) @ stored["loadings"].T + stored["intercept"] + effects)
    background = np.exp(stored["log_background"].astype(np.float64))
    theta = np.exp(stored["log_theta"].astype(np.float64))[batch]
    return {"foreground": foreground, "mean": foreground + background, "theta": theta, "background": background}


def test_the_mean_is_foreground_and_background(fitted: ad.AnnData) -> None:
    expected, got = parameters_of(fitted), get.likelihood_parameters(fitted)
    foreground = tl.normalized_expression(fitted, **QUIET)
    np.testing.assert_allclose(foreground, expected.pop("foreground"), rtol=1e-5)
    assert list(got) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], np.broadcast_to(values, fitted.shape), rtol=1e-5)


def test_what_was_simulated_comes_back(fitted: ad.AnnData) -> None:
    found, truth = (fitted.varm[name] / np.linalg.norm(fitted.varm[name], axis=0) for name in LOADINGS)
    cosines = np.abs(found.T @ truth)
    assert cosines[linear_sum_assignment(-cosines)].min() > 0.95
    log_background, truth = fitted.uns["ldvae"]["decoder"]["log_background"][0], np.log(fitted.var["true_background"])
    assert np.corrcoef(log_background, truth)[0, 1] > 0.5
    assert np.abs(log_background - truth).mean() < 1
    assert fitted.uns["ldvae"]["total_explained_deviance"] > 0.6


def test_scores_are_scipys(fitted: ad.AnnData) -> None:
    """At one draw; the latent is known where its posterior is narrow."""
    mean, theta = parameters_of(fitted)["mean"], parameters_of(fitted)["theta"]
    x = fitted.X.toarray().astype(np.float64)
    expected = -stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum(1).mean()
    got = tl.reconstruction_error(fitted, n_samples=20, **QUIET)
    assert expected < got < 1.1 * expected
    assert -tl.elbo(fitted, **QUIET) > -tl.marginal_log_likelihood(fitted, n_samples=20, **QUIET) > expected


def test_there_is_no_library(fitted: ad.AnnData) -> None:
    assert list(fitted.obs) == ["batch", "ldvae_held_out", "ldvae_fit"]
    assert (get.latent_library_size(fitted) == 1).all()
    assert list(fitted.uns["ldvae"]["encoder"]) == ["z"]
    assert "library_prior" not in fitted.uns["ldvae"]
    tl.rotate(fitted, key_added="turned")
    query = tl.project(fitted[:50, ::-1].copy(), fitted, copy=True, **QUIET)
    np.testing.assert_array_equal(query.obsm["X_ldvae"], fitted.obsm["X_ldvae"][:50])
    assert not {"ldvae_library", "turned_library"} & {*fitted.obs, *query.obs}
    assert tl.elbo(fitted, key="turned", **QUIET) == pytest.approx(tl.elbo(fitted, **QUIET), rel=1e-5)


@pytest.mark.parametrize("library", ["own", 1e4])
def test_expression_is_in_counts_already(fitted: ad.AnnData, library: Any) -> None:
    with pytest.raises(ValueError, match=r"^library=.*'nb_background' has none.*Leave it out"):
        tl.normalized_expression(fitted, library=library, **QUIET)


def test_size_factors_are_refused(fitted: ad.AnnData) -> None:
    fitted.obs["size"] = 2.0
    with pytest.raises(ValueError, match=r"^size_factor_key='size'.*'nb_background'.*no library.*Leave it out"):
        tl.ldvae(fitted, 2, gene_likelihood=LIKELIHOOD, size_factor_key="size", **QUIET)


def test_scvi_tools_does_not_know_it(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"nb_background.*LinearSCVI"):
        io.to_scvi(fitted)


def test_loadings_are_not_centred(fitted: ad.AnnData) -> None:
    assert np.abs(fitted.varm["ldvae_loadings"].mean(0)).max() > 0.1
    assert ((fitted.varm["ldvae_loadings"] ** 3).sum(0) > 0).all()
    assert fitted.varm["ldvae_loadings_se"].min() > 0


def test_groups_differ_in_their_foregrounds(fitted: ad.AnnData) -> None:
    high = fitted.obsm["X_ldvae"][:, 0] > 0
    fitted.obs["side"] = np.where(high, "high", "low")
    tl.differential_expression(fitted, "side", **QUIET)
    table = get.differential_expression(fitted, "high").loc[fitted.var_names]
    assert fitted.uns["rank_genes_groups"]["params"]["pseudocount"] == 1
    # Over draws of the posterior: one count is added to the foreground.
    foreground = tl.normalized_expression(fitted, n_samples=1, **QUIET).to_numpy()
    logs = np.log2(foreground + 1)
    np.testing.assert_allclose(table["logfoldchanges"], logs[high].mean(0) - logs[~high].mean(0), atol=0.15)
    np.testing.assert_allclose(np.log(table["proportion"]), np.log(foreground[high].mean(0)), atol=0.5)
    tl.differential_expression(fitted, "side", mode="vanilla", batch_correction=True, key_added="order", **QUIET)
    assert np.isfinite(get.differential_expression(fitted, "low", key="order")["scores"]).all()


def test_deviance_is_that_of_the_mean_of_each_protein(fitted: ad.AnnData) -> None:
    tl.explained_deviance(fitted, cells="all", **QUIET)
    x, training = fitted.X.toarray().astype(np.float64), ~fitted.obs["ldvae_held_out"].to_numpy()
    expected = parameters_of(fitted)
    null, theta = (x[training].sum(0) + 0.5) / training.sum(), expected["theta"]

    def deviance(mean: np.ndarray) -> float:
        terms = (stats.nbinom.logpmf(x, theta, theta / (theta + m)) for m in (np.maximum(x, 1e-12), mean))
        return 2 * float(np.subtract(*terms).sum())

    share = 1 - deviance(expected["mean"]) / deviance(null)
    assert fitted.uns["ldvae_explained_deviance"]["total"] == pytest.approx(share, rel=1e-4)
    tl.explained_deviance(fitted, cells="all", thinned=0.3, key_added="thinned", **QUIET)
    assert 0.6 < fitted.uns["thinned"]["total"] < share + 0.05


def test_draws_look_like_the_counts(fitted: ad.AnnData) -> None:
    tl.posterior_predictive(fitted, key_added="posterior_predictive", **QUIET)
    means = [matrix.toarray().mean(0) for matrix in (fitted.layers["posterior_predictive"], fitted.X)]
    assert np.median(np.divide(*means)) == pytest.approx(1, abs=0.1)
    assert len(pl.posterior_predictive(fitted, show=False)) == 3


def test_refits_and_halves_know_it(fitted: ad.AnnData) -> None:
    tl.stability(fitted, 2, **QUIET)
    assert fitted.uns["ldvae_stability"]["score"].min() > 0.8
    few = fitted[:200].copy()
    tl.select_n_latent(few, [2, 3], 1, gene_likelihood=LIKELIHOOD, max_epochs=20, **QUIET)
    assert np.isfinite(few.uns["ldvae_n_latent"]["elbo"]).all()
    correlation = get.feature_correlation(fitted)
    assert isinstance(correlation, pd.DataFrame)
    assert np.isfinite(correlation).all(axis=None)


def test_files_keep_it(fitted: ad.AnnData, tmp_path: Path) -> None:
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    assert tl.elbo(back, **QUIET) == tl.elbo(fitted, **QUIET)
    expected, got = (tl.normalized_expression(one, **QUIET) for one in (fitted, back))
    np.testing.assert_array_equal(got, expected)


def test_too_many_factors_vanish() -> None:
    adata = sc_ldvae.datasets.simulate(800, 24, 2, gene_likelihood=LIKELIHOOD, rng=2)
    tl.ldvae(adata, 6, gene_likelihood=LIKELIHOOD, **QUIET)
    assert 2 <= adata.varm["ldvae_loadings"].any(0).sum() <= 4
