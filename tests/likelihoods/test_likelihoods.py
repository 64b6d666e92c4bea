"""Distributions of counts: against automatic differentiation, SciPy, their own draws and simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.special import expit, log_softmax

from sc_ldvae.kernels import TERMS
from sc_ldvae.likelihoods import LIKELIHOODS, Contrasts, GeneLikelihood, log_theta_by_moments
from sc_ldvae.nn import LOG_PROBS

if TYPE_CHECKING:
    from sc_ldvae.likelihoods import Likelihood

MEANS = (0.02, 0.4, 3.0, 40.0)
LOG_THETAS = (-1.5, 0.3, 3.0)
LOG_ODDS = (-4.0, -0.5, 1.0)
LOG_BACKGROUNDS = (-3.0, 0.0, 2.0, 1.0, -1.0)
each = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)


def grid_of(likelihood: Likelihood) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Expression and parts of genes, every combination once."""
    # Of a larger mean nobody draws the zero that would say something of it.
    means = np.minimum(MEANS, 5.0) if likelihood.thresholded else MEANS
    mean, log_theta, log_odds = (values.ravel() for values in np.meshgrid(means, LOG_THETAS, LOG_ODDS))
    every = {
        "log_theta": log_theta,
        "zero_inflation": log_odds,
        "log_background": np.resize(LOG_BACKGROUNDS, mean.shape),
    }
    return mean, {part.name: every[part.name] for part in likelihood.parts}


def natural_of(likelihood: Likelihood, linear: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {part.shown: part.natural(linear[part.name]) for part in likelihood.parts}


def drawn(
    likelihood: Likelihood, mean: np.ndarray, linear: dict[str, np.ndarray], n_cells: int, seed: int = 0
) -> np.ndarray:
    """Counts of cells that are all alike; the parts are given once for all of them."""
    streams, natural = np.random.default_rng(seed).spawn(3), natural_of(likelihood, linear)
    return likelihood.draw(likelihood.mean(np.tile(mean, (n_cells, 1)), natural), natural, streams)


def test_names_are_the_same_everywhere() -> None:
    assert [likelihood.name for likelihood in LIKELIHOODS.values()] == list(LIKELIHOODS)
    assert set(LIKELIHOODS) == set(LOG_PROBS) == set(TERMS) == set(get_args(GeneLikelihood))


@each
def test_slope_and_information_are_derivatives_of_the_log_probability(likelihood: Likelihood) -> None:
    mean, linear = grid_of(likelihood)
    counts = np.tile(np.array([0.0, 1, 2, 7, 60])[:, None], len(mean))
    x = torch.tensor(counts)
    log_mean = torch.tensor(np.tile(np.log(mean), (len(counts), 1)), requires_grad=True)
    parts = [torch.tensor(values)[None] for values in linear.values()]
    log_prob = LOG_PROBS[likelihood.name](x, log_mean, *parts).sum()
    (slope,) = torch.autograd.grad(log_prob, log_mean, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), log_mean)
    first = likelihood.slope(sparse.csr_matrix(counts), np.tile(mean, (len(counts), 1)), linear)
    np.testing.assert_allclose(first, slope.detach().numpy(), rtol=1e-4, atol=1e-5)
    got = likelihood.information(sparse.csr_matrix(counts), np.tile(mean, (len(counts), 1)), linear)
    # It is in single precision; for zero inflation a difference that may vanish.
    np.testing.assert_allclose(got, -curvature.numpy(), rtol=1e-4, atol=1e-6)
    assert (got != 0).all()


@each
def test_derivatives_are_the_same_where_all_is_in_one_place(likelihood: Likelihood) -> None:
    mean, linear = grid_of(likelihood)
    counts = drawn(likelihood, mean, linear, 50).astype(np.float32)
    counts[::5] = np.resize([1, 17, 300], (10, 1))
    expression = np.random.default_rng(0).gamma(2, mean / 2, counts.shape).astype(np.float32)
    by_gene, by_cell = sparse.csc_matrix(counts), sparse.csr_matrix(counts)
    slope, information, updated = likelihood.derivatives(by_gene, np.log(expression.T), linear)
    expected = likelihood.slope(by_cell, expression, linear).T
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * counts.max())
    np.testing.assert_allclose(information, likelihood.information(by_cell, expression, linear).T, rtol=1e-4, atol=1e-4)
    for name, values in likelihood.updated(by_cell, expression, linear).items():
        np.testing.assert_allclose(updated[name], values, rtol=1e-3, atol=1e-3)


@each
def test_updates_end_at_the_most_probable_value_of_a_part(likelihood: Likelihood) -> None:
    """Of a grid, under the prior of the fit for what has one. Which part is updated, others as they are, is of each."""
    mean, linear = grid_of(likelihood)
    updated = {"nb": ["log_theta"], "zinb": ["zero_inflation"], "nb_background": ["log_theta"]}.get(likelihood.name, [])
    counts = sparse.csr_matrix(drawn(likelihood, mean, linear, 400).astype(np.float32))
    expression = np.tile(mean, (400, 1)).astype(np.float32)
    parts = linear
    for _ in range(300):
        parts = likelihood.updated(counts, expression, parts)
    assert [name for name in linear if (parts[name] != linear[name]).any()] == updated
    x, log_mean = (torch.tensor(values, dtype=torch.float64) for values in (counts.toarray(), np.log(expression)))

    def log_posterior(parts: dict[str, np.ndarray]) -> np.ndarray:
        tensors = (torch.tensor(values)[None] for values in parts.values())
        log_prob = LOG_PROBS[likelihood.name](x, log_mean, *tensors).sum(0).numpy()
        return log_prob - (0.5 * parts["log_theta"] ** 2 if "log_theta" in updated else 0)

    for name in updated:
        grid = np.linspace(-6, 6, 121)
        others = np.array([log_posterior(parts | {name: np.full(len(mean), value)}) for value in grid])
        assert (log_posterior(parts) > others.max(0) - 0.5).all()


@each
def test_information_of_a_gene_is_expected_of_the_counts_without_extra_zeros(likelihood: Likelihood) -> None:
    mean, linear = grid_of(likelihood)
    linear |= {"zero_inflation": np.full(len(mean), -40.0)} if "zero_inflation" in linear else {}
    n = 100_000
    counts = drawn(likelihood, mean, linear, n)
    information = likelihood.information(sparse.csr_matrix(counts), np.tile(mean, (n, 1)), linear).astype(np.float64)
    expected, errors = information.mean(0), information.std(0) / np.sqrt(n)
    got = likelihood.expected_information(mean, linear)
    assert (np.abs(got - expected) <= 4.5 * errors + 1e-5 * expected).all()
    counted = mean + np.exp(linear.get("log_background", -np.inf))
    seen = -np.expm1(-mean) if likelihood.thresholded else counted
    # Of a count that is nearly all background a hundredth is taken for expression.
    told = mean > 0.02 * counted
    per_cell = likelihood.information_per_count(seen, linear) * seen
    np.testing.assert_allclose(per_cell[told], got[told], rtol=1e-9)


@each
def test_draws_have_the_mean_and_the_variance_of_the_formulas(likelihood: Likelihood) -> None:
    n, (mean, linear) = 100_000, grid_of(likelihood)
    counts = drawn(likelihood, mean, linear, n).astype(np.float64)
    mean = mean + np.exp(linear.get("log_background", -np.inf))
    variance = mean + mean**2 / np.exp(linear["log_theta"]) if linear else mean
    if likelihood.thresholded:
        mean, variance = -np.expm1(-mean), np.exp(-mean) * -np.expm1(-mean)
    if "zero_inflation" in linear:
        extra = expit(linear["zero_inflation"])
        mean, variance = (1 - extra) * mean, (1 - extra) * (variance + extra * mean**2)
    squares = (counts - mean) ** 2
    assert (np.abs(counts.mean(0) - mean) < 4.5 * counts.std(0) / np.sqrt(n)).all()
    assert (np.abs(squares.mean(0) - variance) < 4.5 * squares.std(0) / np.sqrt(n)).all()


@each
def test_draws_are_counts_that_follow_their_streams(likelihood: Likelihood) -> None:
    mean, linear = grid_of(likelihood)
    counts, same, other = (drawn(likelihood, mean, linear, 5, seed) for seed in (0, 0, 1))
    assert counts.dtype.kind == "i"
    assert counts.shape == (5, len(mean))
    assert (counts >= 0).all()
    np.testing.assert_array_equal(counts, same)
    assert (counts != other).any()


@each
def test_draws_are_the_same_whether_parts_are_of_genes_or_of_cells_and_genes(likelihood: Likelihood) -> None:
    mean, linear = grid_of(likelihood)
    of_cells = {name: np.tile(values, (7, 1)) for name, values in linear.items()}
    np.testing.assert_array_equal(drawn(likelihood, mean, linear, 7), drawn(likelihood, mean, of_cells, 7))


def log_probabilities(x: np.ndarray, mean: np.ndarray, theta: np.ndarray | None) -> np.ndarray:
    terms = stats.poisson.logpmf(x, mean) if theta is None else stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    return terms.sum(1)


@each
def test_deviance_is_twice_what_the_log_likelihood_falls_short(likelihood: Likelihood) -> None:
    """Of the null, and of the decoder without an empty set of factors."""
    rng, shape = np.random.default_rng(0), (40, 25)
    eta, null, library = rng.normal(size=shape), np.log(rng.dirichlet(np.ones(25))), rng.gamma(10, 20, 40)
    every = {
        "log_theta": rng.normal(1, 1, shape),
        "zero_inflation": rng.normal(-1, 1, shape),
        "log_background": np.linspace(-1, 2, 25),
    }
    linear = {part.name: every[part.name] for part in likelihood.parts}
    counts = rng.poisson(rng.gamma(0.5, 8, shape)).astype(np.float64)
    factors, nothing = (rng.normal(size=(40, 2)), rng.normal(size=(2, 25))), np.zeros((1, 2), dtype=bool)
    contrasts = Contrasts(library, null, eta, *factors, nothing, offsets=np.zeros((1, 25)))
    got = likelihood.deviances(sparse.csr_matrix(counts.astype(np.float32)), contrasts, linear)

    theta = np.exp(linear["log_theta"]) if linear else None
    fitted = library[:, None] * np.exp(log_softmax(eta, axis=1)) * expit(-linear.get("zero_inflation", -np.inf))
    if not likelihood.has_library:
        fitted = library[:, None] * (np.exp(eta) + np.exp(linear["log_background"]))
    means = library[:, None] * np.exp(null), fitted
    if likelihood.thresholded:
        expected = [-2 * np.where(counts > 0, stats.poisson.logsf(0, m), -m).sum(1) for m in means]
    else:
        best = log_probabilities(counts, np.maximum(counts, 1e-12), theta)
        expected = [2 * (best - log_probabilities(counts, m, theta)) for m in means]
    np.testing.assert_allclose(got, np.column_stack(expected), rtol=2e-4)


def overdispersed(theta: np.ndarray, library: np.ndarray) -> sparse.csr_matrix:
    rng = np.random.default_rng(1)
    mean = library[:, None] * np.array([3.0, 8.0, 5.0])
    return sparse.csr_matrix(rng.poisson(rng.gamma(theta, mean / theta)))


@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_start_is_at_the_thetas_that_were_simulated(name: str) -> None:
    theta, library = np.array([0.5, 2.0, 20.0]), np.random.default_rng(0).lognormal(0, 0.3, 100_000)
    counts = overdispersed(theta, library)
    log_theta = LIKELIHOODS[name].start(counts, library)["log_theta"]
    np.testing.assert_allclose(np.exp(log_theta), theta, rtol=0.1)
    np.testing.assert_array_equal(log_theta, log_theta_by_moments(counts, library))


@each
def test_start_has_one_bounded_value_per_gene_and_part(likelihood: Likelihood) -> None:
    """Also for genes without counts, and for those that vary less than Poisson."""
    counts = np.random.default_rng(0).poisson(2, (50, 6))
    counts[:, 2], counts[:, 4] = 0, 3
    start = likelihood.start(sparse.csr_matrix(counts), counts.sum(1).astype(float))
    assert list(start) == [part.name for part in likelihood.parts]
    for values in start.values():
        assert values.shape == (6,)
        assert (np.abs(values) < 5).all()


@each
def test_what_is_expression_of_a_mean_has_that_mean(likelihood: Likelihood) -> None:
    expression, linear = grid_of(likelihood)
    mean = likelihood.mean(expression, natural_of(likelihood, linear))
    got = likelihood.expression(mean, linear)
    np.testing.assert_allclose(got, np.maximum(expression, 0 if likelihood.has_library else 0.01 * mean), rtol=1e-9)
    assert (likelihood.expression(np.full_like(mean, 1e-8), linear) > 0).all()


def test_background_starts_where_few_counts_are_below() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.where(rng.random((5000, 3)) < 0.3, 400, [4.0, 20.0, 90.0]))
    start = LIKELIHOODS["nb_background"].start(sparse.csr_matrix(counts), np.ones(5000))
    np.testing.assert_allclose(np.exp(start["log_background"]), [2, 16, 81], rtol=0.1)


@each
def test_simulated_parts_are_natural_ones(likelihood: Likelihood) -> None:
    simulated = likelihood.simulated(10_000, np.random.default_rng(0))
    assert list(simulated) == [part.shown for part in likelihood.parts]
    if "theta" in simulated:
        log_theta = np.log(simulated["theta"])
        assert log_theta.shape == (10_000,)
        assert np.median(log_theta) == pytest.approx(np.log(4), abs=0.03)
        assert log_theta.std() == pytest.approx(0.5, abs=0.02)
    if "zero_inflation" in simulated:
        assert 0 < simulated["zero_inflation"] < 0.5
