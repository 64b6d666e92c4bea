"""Explained deviance: against SciPy, and against all orders of the factors."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, permutations
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.special import expit, softmax

from sc_ldvae.assess import Decoded, deviances_without, explained_deviance, null_proportions
from sc_ldvae.assess._nested import in_order, nested, taken_away
from sc_ldvae.counts import InMemory
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.record import AffineMap, Decoder


def deviance(x: np.ndarray, mean: np.ndarray, theta: np.ndarray | float | None) -> np.ndarray:
    """Of each cell: twice the log-likelihood that `mean` falls short of ``mean = x``."""

    def log_likelihood(m: np.ndarray) -> np.ndarray:
        terms = stats.poisson.logpmf(x, m) if theta is None else stats.nbinom.logpmf(x, theta, theta / (theta + m))
        return terms.sum(axis=1)

    return 2 * (log_likelihood(np.maximum(x, 1e-12)) - log_likelihood(mean))


def affine(rng: np.random.Generator, n_genes: int, sd: float, n_covariates: int = 2) -> AffineMap:
    return AffineMap(
        rng.normal(0, sd, (n_genes, 3)), rng.normal(0, 1, n_genes), rng.normal(0, sd, (n_genes, n_covariates))
    )


class Case(NamedTuple):
    decoder: Decoder
    cells: Decoded
    null: np.ndarray

    def of_null(self) -> np.ndarray:
        return self._deviance(self.cells.library[:, None] * self.null)

    def without(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Deviance of each cell when the chosen factors are averaged out of the expected counts."""
        return self._deviance(self._mean(self.offset(chosen), chosen))

    def offset(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Of each gene: brings what is expected of it in all cells to what it is with every factor."""
        every, some = (self._mean(0.0, sets, background=0.0) for sets in ((), chosen))
        if self.decoder.likelihood.thresholded:
            # Cells that are expected to have any, and the mean with which a cell has any with their frequency.
            every, some = (-np.log(np.exp(-mean).mean(0)) for mean in (every, some))
            return np.log(every / some)
        return np.log(every.sum(0) / some.sum(0))

    def _mean(
        self, offset: np.ndarray | float, chosen: tuple[int, ...], background: float | np.ndarray | None = None
    ) -> np.ndarray:
        latent, parts = self.cells.latent.copy(), self.decoder.parts
        latent[:, list(chosen)] = latent[:, list(chosen)].mean(0)
        eta = self.decoder.log_proportion(latent, self.cells.covariates) + offset
        if "log_background" in parts:
            added = np.exp(parts["log_background"]) if background is None else background
            return self.cells.library[:, None] * (np.exp(eta) + added)
        shares = 1.0
        if "zero_inflation" in parts:
            shares = 1 - expit(parts["zero_inflation"](self.cells.latent, self.cells.covariates))
        return self.cells.library[:, None] * softmax(eta, axis=1) * shares

    def _deviance(self, mean: np.ndarray) -> np.ndarray:
        x = self.cells.source.rows(np.arange(len(mean))).toarray().astype(np.float64)
        if self.decoder.likelihood.thresholded:
            return -2 * np.where(x > 0, stats.poisson.logsf(0, mean), -mean).sum(1)
        theta = self.decoder.parts.get("log_theta")
        if isinstance(theta, AffineMap):
            theta = np.exp(theta(self.cells.latent, self.cells.covariates))
        elif theta is not None:
            theta = np.exp(theta[self.cells.group])
        return deviance(x, mean, theta)


def case(gene_likelihood: str, dispersion: str = "gene-batch", n_obs: int = 300, n_covariates: int = 2) -> Case:
    """More cells than one chunk; counts that the decoder says something of."""
    rng, n_genes = np.random.default_rng(0), 25
    proportion, parts = affine(rng, n_genes, 0.6, n_covariates), {}
    proportion = replace(proportion, loadings=proportion.loadings * [0.6, 1.2, 0.4])
    if gene_likelihood not in ("poisson", "bernoulli"):
        per_cell = dispersion == "gene-cell"
        parts["log_theta"] = affine(rng, n_genes, 0.3, n_covariates) if per_cell else rng.normal(1, 1, (2, n_genes))
    if gene_likelihood == "zinb":
        parts["zero_inflation"] = affine(rng, n_genes, 0.3, n_covariates)
    if gene_likelihood == "nb_background":
        parts["log_background"] = rng.normal(0, 1, (1, n_genes))
    decoder, library = Decoder(proportion, parts, LIKELIHOODS[gene_likelihood]), rng.gamma(10, 20, n_obs)
    if decoder.likelihood.thresholded:
        library /= 10
    if decoder.likelihood.has_library:
        decoder = replace(decoder, log_proportion=proportion.genes_centred())
    else:
        library = np.ones(n_obs)
    arrays = rng.normal(0.5, 1, (n_obs, 3)), rng.normal(size=(n_obs, n_covariates)), library
    rows = rng.integers(2, size=n_obs)
    drawn = Case(decoder, Decoded(InMemory(sparse.csr_matrix((n_obs, n_genes))), *arrays, rows), np.ones(n_genes))
    spread = 1e6 if decoder.likelihood.thresholded else 2.0
    x = rng.poisson(rng.gamma(spread, drawn._mean(0.0, ()) / spread)).astype(np.float32)
    cells = Decoded(InMemory(sparse.csr_matrix(x)), *arrays, rows)
    null = null_proportions(decoder.likelihood, cells.source, np.arange(n_obs))
    return Case(decoder, cells, null)


each = pytest.mark.parametrize(
    ("gene_likelihood", "dispersion"),
    [
        ("nb", "gene-batch"),
        ("nb", "gene-cell"),
        ("zinb", "gene-batch"),
        ("zinb", "gene-cell"),
        ("poisson", "none"),
        ("bernoulli", "none"),
        ("nb_background", "gene-batch"),
    ],
)


@each
def test_deviance_without_sets_of_factors(gene_likelihood: str, dispersion: str) -> None:
    one, sets = case(gene_likelihood, dispersion), [(), (0,), (1, 2), (0, 1, 2), (0, 2)]
    without = np.array([np.isin(np.arange(3), chosen) for chosen in sets])
    got = np.concatenate(list(deviances_without(one.decoder, one.cells, without, one.null)))
    expected = [one.of_null(), *map(one.without, sets)]
    np.testing.assert_allclose(got, np.column_stack(expected), rtol=2e-4)


def shapley(explains: dict[frozenset[int], float], n: int) -> np.ndarray:
    """Mean over all orders of what each adds to those before it."""
    orders, shares = list(permutations(range(n))), np.zeros(n)
    for order in orders:
        for place, k in enumerate(order):
            before = frozenset(order[:place])
            shares[k] += (explains[before | {k}] - explains[before]) / len(orders)
    return shares


@each
def test_shares_are_shapley_values(gene_likelihood: str, dispersion: str) -> None:
    one, every = case(gene_likelihood, dispersion), frozenset(range(3))
    null = one.of_null().sum()
    explains = {
        frozenset(there): 1 - one.without(tuple(every - set(there))).sum() / null
        for there in chain.from_iterable(combinations(range(3), n) for n in range(4))
    }
    got = explained_deviance(one.decoder, one.cells, one.null)
    assert got.total == pytest.approx(explains[every], rel=1e-4)
    assert got.null == pytest.approx(null / 300, rel=1e-4)
    assert got.shares.sum() == pytest.approx(explains[every] - explains[frozenset()], rel=1e-3)
    # Two orders in place of six.
    np.testing.assert_allclose(got.shares, shapley(explains, 3), atol=3e-3)
    assert got.shares.min() > 0.004


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_two_orders_are_all_where_factors_overlap_in_pairs(n: int) -> None:
    """Names and places of the factors differ, one has vanished, and groups of cells have their own."""
    rng, names, n_latent = np.random.default_rng(n), np.random.default_rng(1).permutation(n), n + 1
    alone, pairs = rng.normal(size=(2, n)), rng.normal(size=(2, n, n))

    def explains(there: np.ndarray) -> np.ndarray:
        return there @ alone.T + np.einsum("i,gij,j->g", there, pairs, there)

    sets = nested(names, n_latent)
    assert len(sets) == max(1, 2 * n)
    assert (np.abs(np.diff(sets.astype(int), axis=0)).sum(1) == 1).all()
    deviances = 10 - np.stack([explains(~without[:n]) for without in sets], axis=1)
    got = taken_away(np.column_stack([deviances, rng.normal(size=(2, 3))]), names, n_latent)
    assert got.shape == (2, n_latent)
    np.testing.assert_array_equal(got[:, n], 0)
    for group in range(2):
        of_sets = {
            frozenset(there): explains(np.isin(np.arange(n), there))[group]
            for there in chain.from_iterable(combinations(range(n), size) for size in range(n + 1))
        }
        np.testing.assert_allclose(got[group, :n], shapley(of_sets, n), atol=1e-12)


@pytest.mark.parametrize("gene_likelihood", ["nb", "poisson", "bernoulli", "nb_background"])
def test_without_factors_nothing_is_explained_but_by_covariates(gene_likelihood: str) -> None:
    """Where factors are average the cells are not, which is why they are averaged out of the counts."""
    plain = case(gene_likelihood, n_covariates=0)
    null, every = plain.of_null().sum(), (0, 1, 2)
    if gene_likelihood != "bernoulli":
        # A cell has a gene or not: its average says less than that of counts.
        assert 1 - plain._deviance(plain._mean(0.0, every)).sum() / null < -0.02
    got = explained_deviance(plain.decoder, plain.cells, plain.null)
    assert abs(got.total - got.shares.sum()) < 0.01
    covariates = case(gene_likelihood)
    got = explained_deviance(covariates.decoder, covariates.cells, covariates.null)
    assert got.total - got.shares.sum() > 0.05


def test_factors_come_by_what_they_explain() -> None:
    """Whatever order the fit has them in, which it does not know before it has measured them."""
    one = case("nb")
    decoder, cells = one.decoder, one.cells
    order = in_order(decoder, cells)
    first = explained_deviance(decoder, cells, one.null).shares
    assert order.tolist() == np.argsort(-first).tolist() == [1, 0, 2]
    turned, signs = np.array([2, 0, 1]), np.array([-1.0, 1, 1])
    other = Decoded(cells.source, cells.latent[:, turned] * signs, cells.covariates, cells.library, cells.group)
    assert turned[in_order(decoder.reordered(turned, signs), other)].tolist() == order.tolist()
    again = explained_deviance(decoder.reordered(turned, signs), other, one.null).shares
    np.testing.assert_allclose(again, first[turned], rtol=1e-4)


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


def test_absent_factors_have_no_share() -> None:
    one = case("nb")
    loadings = one.decoder.log_proportion.loadings * [1, 0, 1]
    decoder = replace(one.decoder, log_proportion=replace(one.decoder.log_proportion, loadings=loadings))
    shares = explained_deviance(decoder, one.cells, one.null).shares
    assert shares[1] == 0
    assert (shares[[0, 2]] > 0.01).all()
