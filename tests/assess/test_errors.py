"""Standard errors of the loadings: against automatic differentiation of the likelihood, and against the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.linalg import block_diag
from scipy.special import logsumexp
from torch.distributions import NegativeBinomial, Poisson
from torch.nn.functional import logsigmoid

import sc_ldvae
from sc_ldvae import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_LATENT = 3
# Standard error of a loading of which the counts say nothing.
LARGEST = 10


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(150, 30, N_LATENT, n_batches=3, n_continuous=1, mean_library=500)
    adata.obs["sex"] = np.random.default_rng(0).choice(["female", "male"], adata.n_obs)
    return adata


def halved(counts: ad.AnnData) -> ad.AnnData:
    """Each gene in about half of the cells."""
    adata, dense = counts.copy(), counts.X.toarray()
    adata.X = sparse.csr_matrix((dense > np.median(dense, 0)).astype(np.float32))
    return adata


def affine(stored: Any, latent: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    effects = covariates @ np.asarray(stored["covariate_effects"], np.float64).T
    return latent @ np.asarray(stored["loadings"], np.float64).T + stored["intercept"] + effects


def covariates_of(obs: pd.DataFrame) -> np.ndarray:
    """One column per level of batch and sex, and the standardised number."""
    levels = [pd.get_dummies(obs[key]).to_numpy(np.float64) for key in ("batch", "sex")]
    number = obs["covariate1"].to_numpy()
    return np.column_stack([*levels, (number - number.mean()) / number.std()])


# What effects that sum to zero over levels are of: of the last level, they are minus the sum of the others.
FREE = block_diag([[1, 0], [0, 1], [-1, -1]], [[1], [-1]], [[1]])


def negative_hessian(
    x: np.ndarray,
    log_mean: np.ndarray,
    inputs: np.ndarray,
    theta: np.ndarray | None,
    logits: np.ndarray | None,
    background: float = 0.0,
    *,
    thresholded: bool,
) -> np.ndarray:
    """Of one gene's log-likelihood in its regression coefficients, by automatic differentiation."""
    x, log_mean, inputs = (torch.as_tensor(part, dtype=torch.float64) for part in (x, log_mean, inputs))

    def log_likelihood(change: torch.Tensor) -> torch.Tensor:
        changed = log_mean + inputs @ change
        if thresholded:
            return torch.where(x > 0, torch.log(1 - torch.exp(-changed.exp())), -changed.exp()).sum()
        changed = (background + changed.exp()).log()
        if theta is None:
            return Poisson(changed.exp()).log_prob(x).sum()
        spread = torch.as_tensor(theta)
        counted = NegativeBinomial(spread, logits=changed - spread.log()).log_prob(x)
        if logits is None:
            return counted.sum()
        odds = torch.as_tensor(logits)
        counted = logsigmoid(-odds) + counted
        return torch.where(x > 0, counted, torch.logaddexp(logsigmoid(odds), counted)).sum()

    zero = torch.zeros(inputs.shape[1], dtype=torch.float64)
    return -torch.autograd.functional.hessian(log_likelihood, zero).numpy()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="nb"),
        pytest.param({"gene_likelihood": "poisson"}, id="poisson"),
        pytest.param({"gene_likelihood": "zinb"}, id="zinb"),
        pytest.param({"gene_likelihood": "bernoulli"}, id="bernoulli"),
        pytest.param({"dispersion": "gene-batch"}, id="gene-batch"),
        pytest.param({"gene_likelihood": "zinb", "dispersion": "gene-cell"}, id="zinb-gene-cell"),
        pytest.param({"use_observed_lib_size": True, "train_size": 1.0}, id="all-cells-observed-library"),
        pytest.param({"latent_distribution": "ln"}, id="ln"),
        pytest.param({"gene_likelihood": "nb_background", "dispersion": "gene-batch"}, id="nb_background"),
    ],
)
def test_covariance_is_the_inverse_of_the_observed_information(
    counts: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], options: dict[str, Any]
) -> None:
    thresholded = "bernoulli" in options.values()
    adata = fit_quickly(
        halved(counts) if thresholded else counts,
        copy=True,
        batch_key="batch",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["covariate1"],
        **options,
    )
    stored = adata.uns["ldvae"]["decoder"]
    latent, covariates = adata.obsm["X_ldvae"].astype(np.float64), covariates_of(adata.obs)
    eta = affine(stored, latent, covariates)
    log_mean, backgrounds = eta, np.exp(stored.get("log_background", [np.full(adata.n_vars, -np.inf)])[0])
    if "ldvae_library" in adata.obs:
        log_library = np.log(adata.obs[["ldvae_library"]].to_numpy(np.float64))
        log_mean = eta - logsumexp(eta, axis=1, keepdims=True) + log_library
    theta = logits = None
    if "gene-cell" in options.values():
        theta = np.exp(affine(stored["log_theta"], latent, covariates))
    elif "log_theta" in stored:
        rows = adata.obs["batch"].cat.codes if len(stored["log_theta"]) > 1 else np.zeros(adata.n_obs, dtype=int)
        theta = np.exp(stored["log_theta"].astype(np.float64))[rows]
    if "zero_inflation" in stored:
        logits = affine(stored["zero_inflation"], latent, covariates)

    ones = np.ones((adata.n_obs, 0 if "ln" in options.values() else 1))
    inputs = np.hstack([latent, covariates @ FREE, ones])
    training = ~adata.obs["ldvae_held_out"].to_numpy()
    x = adata.X.toarray()
    got = record.read(adata).loadings_covariance
    # Not the rarest: with zero inflation, after so short a fit, their likelihood is not concave.
    for gene in np.argsort(x.sum(0))[[8, 12, 18, 24, 29]]:
        own = (None if part is None else part[training, gene] for part in (theta, logits))
        of_gene = x[training, gene], log_mean[training, gene], inputs[training], *own
        information = negative_hessian(*of_gene, backgrounds[gene], thresholded=thresholded)
        inverse = np.linalg.inv(information)
        expected = inverse[:N_LATENT, :N_LATENT]
        np.testing.assert_allclose(got[gene], expected, rtol=2e-3, atol=1e-3 * expected.diagonal().min())
        own = slice(N_LATENT, N_LATENT + FREE.shape[1])
        of_effects = np.sqrt(np.diag(FREE @ inverse[own, own] @ FREE.T))
        np.testing.assert_allclose(adata.uns["ldvae"]["covariate_effects_se"][gene], of_effects, rtol=2e-3)


def test_errors_of_covariate_effects_know_their_prior(counts: ad.AnnData) -> None:
    """Whose scale is that of the effects and their errors, for each covariate by itself."""
    adata = counts.copy()
    options: dict[str, Any] = {"batch_key": "batch", "categorical_covariate_keys": ["sex"], "progress": False}
    sc_ldvae.tl.ldvae(adata, N_LATENT, continuous_covariate_keys=["covariate1"], max_epochs=400, **options)
    stored, gene = adata.uns["ldvae"]["decoder"], int(np.argmin(adata.X.sum(0)))
    effects = stored["covariate_effects"].astype(np.float64)
    errors = sc_ldvae.get.covariate_effects_se(adata)
    assert errors.columns.tolist() == sc_ldvae.get.covariate_effects(adata).columns.tolist()
    squares = (effects**2 + errors.to_numpy(np.float64) ** 2).mean(0)
    widths = np.concatenate([np.full(3, squares[:3].mean()), np.full(2, squares[3:5].mean()), squares[5:]])
    left = np.abs(stored["loadings"]).any(0)
    latent, covariates = adata.obsm["X_ldvae"].astype(np.float64), covariates_of(adata.obs)
    eta = affine(stored, latent, covariates)
    log_library = np.log(adata.obs[["ldvae_library"]].to_numpy(np.float64))
    log_mean = eta - logsumexp(eta, axis=1, keepdims=True) + log_library
    inputs = np.hstack([latent[:, left], covariates @ FREE, np.ones((adata.n_obs, 1))])
    training = ~adata.obs["ldvae_held_out"].to_numpy()
    theta = np.exp(stored["log_theta"][0, gene].astype(np.float64))
    x = adata.X.toarray()[training, gene]
    information = negative_hessian(x, log_mean[training, gene], inputs[training], theta, None, thresholded=False)
    n_left = int(left.sum())
    own = slice(n_left, n_left + FREE.shape[1])
    without = np.sqrt(np.diag(FREE @ np.linalg.inv(information)[own, own] @ FREE.T))
    information[own, own] += FREE.T @ np.diag(1 / widths) @ FREE
    expected = np.sqrt(np.diag(FREE @ np.linalg.inv(information)[own, own] @ FREE.T))
    np.testing.assert_allclose(errors.iloc[gene], expected, rtol=0.02)
    assert (expected < 0.97 * without).any()


def test_errors_are_roots_of_the_covariance_and_not_a_number_outside_the_mask(
    counts: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], tmp_path: Path
) -> None:
    adata = counts.copy()
    adata.var["chosen"] = np.arange(adata.n_vars) % 4 > 0
    fit_quickly(adata, mask_var="chosen")
    chosen, errors = adata.var["chosen"].to_numpy(), adata.varm["ldvae_loadings_se"]
    assert errors.dtype == np.float32
    assert np.isnan(errors[~chosen]).all()
    variances = np.diagonal(record.read(adata).loadings_covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(errors[chosen], np.sqrt(variances), rtol=1e-6)
    assert (errors[chosen] > 0).all()

    adata.write_h5ad(tmp_path / "fit.h5ad")
    adata.write_zarr(tmp_path / "fit.zarr")
    for back in (ad.read_h5ad(tmp_path / "fit.h5ad"), ad.read_zarr(tmp_path / "fit.zarr")):
        np.testing.assert_array_equal(back.varm["ldvae_loadings_se"], errors)
        kept, before = (one.uns["ldvae"]["loadings_covariance"] for one in (back, adata))
        np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("gene_likelihood", ["nb", "zinb", "poisson", "bernoulli", "nb_background"])
def test_genes_without_counts_have_large_but_bounded_errors(
    counts: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], gene_likelihood: str
) -> None:
    adata = halved(counts) if gene_likelihood == "bernoulli" else counts.copy()
    dense = adata.X.toarray()
    dense[:, [4, 11]] = 0
    adata.X = dense
    fit_quickly(adata, gene_likelihood=gene_likelihood, max_epochs=20)
    errors = adata.varm["ldvae_loadings_se"]
    empty = np.isin(np.arange(adata.n_vars), [4, 11])
    assert np.isfinite(errors).all()
    assert errors.max() <= LARGEST
    assert errors[empty].min() > errors[~empty].max()


@pytest.mark.parametrize(
    ("simulation", "options"),
    [
        pytest.param({}, {}, id="nb"),
        pytest.param({"gene_likelihood": "poisson"}, {"gene_likelihood": "poisson"}, id="poisson"),
        pytest.param(
            {"n_batches": 3, "n_continuous": 1},
            {"batch_key": "batch", "continuous_covariate_keys": ["covariate1"]},
            id="covariates",
        ),
    ],
)
def test_intervals_cover_the_truth(simulation: dict[str, Any], options: dict[str, Any]) -> None:
    """The truth is brought into the basis of the fit, which the prior alone decides."""
    adata = sc_ldvae.datasets.simulate(1500, 300, 4, rng=3, **simulation)
    sc_ldvae.tl.ldvae(adata, 4, progress=False, **options)
    errors = adata.varm["ldvae_loadings_se"].astype(np.float64)
    weights = 1 / (errors**2).mean(axis=1)

    def centred(values: np.ndarray) -> np.ndarray:
        return values - np.average(values, axis=0, weights=weights)

    fitted, truth = centred(adata.varm["ldvae_loadings"].astype(np.float64)), centred(adata.varm["true_loadings"])
    root = np.sqrt(weights)[:, None]
    basis = np.linalg.lstsq(root * truth, root * fitted, rcond=None)[0]
    standardised = (fitted - truth @ basis) / errors
    covered = (np.abs(standardised) < 1.96).mean()
    assert 0.9 < covered < 0.98
    assert 0.85 < standardised.std() < 1.2
    if "batch_key" in options:
        effects = np.hstack([adata.varm["true_batch_effects"], adata.varm["true_continuous_effects"]]).astype(
            np.float64
        )
        effects[:, :3] -= effects[:, :3].mean(1, keepdims=True)
        effects[:, 3] *= adata.obs["covariate1"].std()
        effects -= effects.mean(0)
        off = sc_ldvae.get.covariate_effects(adata).to_numpy() - effects
        # The latent takes a little of what differs between batches by chance, which these errors do not know.
        assert 0.85 < (np.abs(off / sc_ldvae.get.covariate_effects_se(adata).to_numpy()) < 1.96).mean() < 0.98
