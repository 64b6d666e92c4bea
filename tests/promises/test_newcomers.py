"""What a newcomer to the house touches: one likelihood file and one torch function; one source of counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse, stats

import sc_ldvae
from sc_ldvae.counts import Source, source_of
from sc_ldvae.engine import Autograd, AutogradEngine, engine_of, scorer_of
from sc_ldvae.likelihoods import LIKELIHOODS, Likelihood, NegativeBinomial
from sc_ldvae.nn import LDVAE, LOG_PROBS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import anndata as ad


class Geometric(NegativeBinomial):
    """A negative binomial with theta = 1: nothing beside the mean."""

    name = "geometric"
    parts = ()

    def theta(self, linear: Mapping[str, np.ndarray]) -> np.ndarray:
        del linear
        return np.ones(1)

    def start(self, counts: sparse.csr_matrix, library: np.ndarray) -> dict[str, np.ndarray]:
        del counts, library
        return {}

    def updated(self, counts, mean, linear):  # noqa: ANN001, ANN201  as its parent
        del counts, mean
        return dict(linear)

    derivatives = Likelihood.derivatives

    def deviances(self, counts, contrasts, linear):  # noqa: ANN001, ANN201  as its parent
        thetas = {"log_theta": np.zeros_like(contrasts.eta)}
        return NegativeBinomial().deviances(counts, contrasts, linear | thetas)

    def draw(self, mean, natural, streams):  # noqa: ANN001, ANN201  as its parent
        del natural
        return streams[0].geometric(1 / (1 + mean)) - 1

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        del n_genes, rng
        return {}


def log_geometric(x: torch.Tensor, log_mu: torch.Tensor) -> torch.Tensor:
    return x * log_mu - (x + 1) * torch.nn.functional.softplus(log_mu)


@pytest.fixture(scope="module")
def geometric() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIKELIHOODS, "geometric", Geometric())
        patch.setitem(LOG_PROBS, "geometric", log_geometric)
        yield "geometric"


class Shelf(sparse.csr_matrix):
    """Counts of a kind of their own."""


@dataclass(frozen=True)
class FromShelf(Source):
    """Reads rows one by one, and tells how many."""

    matrix: sparse.csr_matrix
    read: list[int] = field(default_factory=list)

    @property
    def n_obs(self) -> int:
        return self.matrix.shape[0]

    @property
    def n_vars(self) -> int:
        return self.matrix.shape[1]

    @property
    def nonzeros_per_cell(self) -> float:
        return self.matrix.nnz / self.n_obs

    @property
    def totals(self) -> np.ndarray:
        return np.array([row.sum(dtype=np.float64) for row in self.matrix])

    def rows(self, cells: np.ndarray) -> sparse.csr_matrix:
        self.read.append(len(cells))
        return sparse.vstack([self.matrix[cell] for cell in cells], format="csr").astype(np.float32)


@pytest.fixture
def shelf() -> Iterator[list[FromShelf]]:
    """The sources that are made while it is registered."""
    made: list[FromShelf] = []

    @source_of.register(Shelf)
    def _(matrix: Shelf, name: str, genes: np.ndarray | None = None) -> FromShelf:
        del name
        plain = sparse.csr_matrix(matrix)
        made.append(FromShelf(plain if genes is None else plain[:, genes]))
        return made[-1]

    yield made
    source_of.register(Shelf, source_of.dispatch(sparse.csr_matrix))


@pytest.fixture(scope="module")
def once(geometric: str) -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(400, 120, 2, n_batches=2, gene_likelihood=geometric)
    options = {"gene_likelihood": geometric, "batch_key": "batch", "use_observed_lib_size": True}
    sc_ldvae.tl.ldvae(adata, 2, max_epochs=40, n_hidden=16, progress=False, **options)
    return adata


@pytest.fixture
def fitted(once: ad.AnnData) -> ad.AnnData:
    return once.copy()


def test_without_a_kernel_autograd_serves_on_the_cpu(geometric: str) -> None:
    model = LDVAE(10, n_latent=2, gene_likelihood=geometric, use_observed_lib_size=True)
    with engine_of(model, 1.0) as engine, scorer_of(model) as scorer:
        assert type(engine) is AutogradEngine
        assert type(scorer) is Autograd


def test_a_new_likelihood_finds_the_factors(fitted: ad.AnnData) -> None:
    correlations = np.abs(np.corrcoef(fitted.obsm["true_latent"].T, fitted.obsm["X_ldvae"].T)[:2, 2:])
    assert correlations.max(1).min() > 0.8
    assert (fitted.uns["ldvae"]["explained_deviance"] > 0.01).all()
    assert fitted.uns["ldvae"]["blocks"]["gene_likelihood"].tolist() == ["geometric"]


def test_its_scores_are_scipys(fitted: ad.AnnData) -> None:
    """At one draw; the latent is known where its posterior is narrow."""
    fitted.obsm["X_ldvae_variance"][:] = 0
    (mean,) = sc_ldvae.get.likelihood_parameters(fitted).values()
    expected = -stats.geom.logpmf(fitted.X.toarray() + 1, 1 / (1 + mean.to_numpy(np.float64))).sum(1).mean()
    got = sc_ldvae.tl.reconstruction_error(fitted, progress=False)
    assert got == pytest.approx(expected, rel=0.02)


def test_everything_after_the_fit_knows_it(fitted: ad.AnnData) -> None:
    query = sc_ldvae.tl.project(fitted[:50, ::-1].copy(), fitted, copy=True, progress=False)
    np.testing.assert_allclose(query.obsm["X_ldvae"], fitted.obsm["X_ldvae"][:50], rtol=1e-4, atol=1e-5)
    (drawn,) = sc_ldvae.tl.posterior_predictive(fitted, progress=False)
    assert drawn.mean() == pytest.approx(fitted.X.mean(), rel=0.1)
    sc_ldvae.tl.differential_expression(fitted, "batch", progress=False)
    sc_ldvae.tl.explained_deviance(fitted, cells="all", progress=False)
    assert 0 < fitted.uns["ldvae_explained_deviance"]["total"] < 1
    sc_ldvae.tl.stability(fitted, 2, progress=False)
    assert fitted.varm["ldvae_loadings_se"].min() > 0
    rotated = sc_ldvae.tl.rotate(fitted, key_added="turned", copy=True)
    assert sc_ldvae.tl.elbo(rotated, key="turned", progress=False) == pytest.approx(
        sc_ldvae.tl.elbo(fitted, progress=False), rel=1e-4
    )


@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_a_new_source_gives_the_fit_of_counts_in_memory(shelf: list[FromShelf], likelihood: str) -> None:
    adata = sc_ldvae.datasets.simulate(90, 30, 2)
    adata.layers["shelf"] = Shelf(adata.X)
    options = {"gene_likelihood": likelihood, "max_epochs": 3, "copy": True, "progress": False}
    expected = sc_ldvae.tl.ldvae(adata, 2, **options)
    got = sc_ldvae.tl.ldvae(adata, 2, layer="shelf", **options)
    np.testing.assert_array_equal(got.obsm["X_ldvae"], expected.obsm["X_ldvae"])
    np.testing.assert_array_equal(got.varm["ldvae_loadings"], expected.varm["ldvae_loadings"])
    np.testing.assert_array_equal(got.varm["ldvae_loadings_se"], expected.varm["ldvae_loadings_se"])
    assert max(shelf[0].read) <= 90
    assert sc_ldvae.tl.elbo(got, progress=False) == sc_ldvae.tl.elbo(expected, progress=False)
