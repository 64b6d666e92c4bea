"""Explained deviance: against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.special import expit, softmax

from sc_ldvae.assess import Decoded, deviances_without, explained_deviance, null_proportions
from sc_ldvae.counts import InMemory
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.record import AffineMap, Decoder


def deviance(x: np.ndarray, mean: np.ndarray, theta: np.ndarray | float | None) -> np.ndarray:
    """Of each cell: twice the log-likelihood that `mean` falls short of ``mean = x``."""

    def log_likelihood(m: np.ndarray) -> np.ndarray:
        terms = stats.poisson.logpmf(x, m) if theta is None else stats.nbinom.logpmf(x, theta, theta / (theta + m))
        return terms.sum(axis=1)

    return 2 * (log_likelihood(np.maximum(x, 1e-12)) - log_likelihood(mean))


def total_deviance(x: np.ndarray, mean: np.ndarray, theta: float | None) -> float:
    return deviance(x, mean, theta).sum()


def affine(rng: np.random.Generator, n_genes: int, sd: float) -> AffineMap:
    return AffineMap(rng.normal(0, sd, (n_genes, 3)), rng.normal(0, 1, n_genes), rng.normal(0, sd, (n_genes, 2)))


@pytest.mark.parametrize(
    ("gene_likelihood", "dispersion"),
    [
        ("nb", "gene-batch"),
        ("nb", "gene-cell"),
        ("zinb", "gene-batch"),
        ("zinb", "gene-cell"),
        ("poisson", "none"),
        ("nb_background", "gene-batch"),
    ],
)
def test_deviance_without_sets_of_factors(gene_likelihood: str, dispersion: str) -> None:
    """More cells than one chunk."""
    rng = np.random.default_rng(0)
    n_obs, n_genes = 300, 25
    log_theta = {"gene-batch": rng.normal(1, 1, (2, n_genes)), "gene-cell": affine(rng, n_genes, 0.3)}.get(dispersion)
    proportion, parts = affine(rng, n_genes, 0.6), {} if log_theta is None else {"log_theta": log_theta}
    if gene_likelihood == "zinb":
        parts["zero_inflation"] = affine(rng, n_genes, 0.3)
    if gene_likelihood == "nb_background":
        parts["log_background"] = rng.normal(0, 1, (1, n_genes))
    decoder = Decoder(proportion, parts, LIKELIHOODS[gene_likelihood])
    latent, covariates = rng.normal(0.5, 1, (n_obs, 3)), rng.normal(size=(n_obs, 2))
    library, rows = rng.gamma(10, 20, n_obs), rng.integers(2, size=n_obs)
    counts = sparse.csr_matrix(rng.poisson(rng.gamma(0.5, 8, (n_obs, n_genes))).astype(np.float32))
    null, latent_mean = rng.dirichlet(np.ones(n_genes)), latent.mean(axis=0)
    without = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    cells = Decoded(InMemory(counts), latent, covariates, library, rows)
    got = np.concatenate(list(deviances_without(decoder, cells, without, null, latent_mean)))

    theta = log_theta
    if isinstance(log_theta, AffineMap):
        theta = np.exp(log_theta(latent, covariates))
    elif log_theta is not None:
        theta = np.exp(log_theta[rows])
    inflation = parts.get("zero_inflation")
    shares = 1 if inflation is None else 1 - expit(inflation(latent, covariates))
    x = counts.toarray().astype(np.float64)
    expected = [deviance(x, library[:, None] * null, theta)]
    for chosen in without:
        changed = np.where(chosen, latent_mean, latent)
        eta = decoder.log_proportion(changed, covariates)
        proportions = softmax(eta, axis=1) * shares
        if gene_likelihood == "nb_background":
            proportions = np.exp(eta) + np.exp(parts["log_background"])
        expected.append(deviance(x, library[:, None] * proportions, theta))
    np.testing.assert_allclose(got, np.column_stack(expected), rtol=2e-4)


@pytest.mark.parametrize("gene_likelihood", ["nb", "poisson", "bernoulli"])
def test_the_null_expects_of_each_gene_what_there_is(gene_likelihood: str) -> None:
    likelihood, mean = LIKELIHOODS[gene_likelihood], np.array([0.01, 0.2, 1.0, 3.0])
    x = np.random.default_rng(0).poisson(mean, (20_000, 4)).astype(np.float32)
    if likelihood.thresholded:
        # Whatever there is beyond one.
        x *= np.array([1, 5, 1, 2], np.float32)
    got = null_proportions(likelihood, InMemory(sparse.csr_matrix(x)), np.arange(len(x)))
    np.testing.assert_allclose(got, mean / mean.sum(), rtol=0.1)
    assert got.sum() == pytest.approx(1)


@pytest.mark.parametrize("gene_likelihood", ["nb", "poisson"])
def test_explained_deviance_of_known_factors(gene_likelihood: str) -> None:
    """A strong, a weak and an absent factor; more cells than one chunk."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(0, [0.8, 0.3, 0.0], (30, 3))
    latent, library = rng.normal(size=(600, 3)), np.full(600, 400.0)
    proportion = AffineMap(loadings, np.log(np.full(30, 1 / 30)), np.zeros((30, 0)))
    parts = {"log_theta": np.full((1, 30), 2.0)} if gene_likelihood == "nb" else {}
    decoder = Decoder(proportion, parts, LIKELIHOODS[gene_likelihood])
    eta = latent @ loadings.T
    mean = 400 * np.exp(eta) / np.exp(eta).sum(1, keepdims=True)
    theta = np.exp(2.0) if parts else 1e9
    x = sparse.csr_matrix(rng.poisson(rng.gamma(theta, mean / theta)))
    cells = Decoded(InMemory(x), latent, np.zeros((600, 0)), library, np.zeros(600, dtype=int))
    null = np.asarray(x.sum(0)).ravel() / x.sum()
    total, shares, _ = explained_deviance(decoder, cells, null, np.zeros(3))

    dense, spread = x.toarray().astype(float), np.exp(2.0) if parts else None
    null_deviance = total_deviance(dense, np.outer(library, null), spread)
    assert total == pytest.approx(1 - total_deviance(dense, mean, spread) / null_deviance, rel=1e-5)
    without = latent[:, 1:] @ loadings[:, 1:].T
    without_mean = 400 * np.exp(without) / np.exp(without).sum(1, keepdims=True)
    expected = (total_deviance(dense, without_mean, spread) - total_deviance(dense, mean, spread)) / null_deviance
    assert shares[0] == pytest.approx(expected, rel=1e-5)
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0, abs=1e-12)
