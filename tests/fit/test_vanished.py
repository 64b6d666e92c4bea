"""Factors that the cells do not support: how many vanish, and what is left of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import record
from sc_ldvae._options import Levels, ModelOptions, Schedule
from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.fit import Request
from sc_ldvae.fit._vanish import with_vanished, without_vanished
from sc_ldvae.nn import LDVAE

N_TRUE, N_LATENT = 3, 8


@pytest.fixture(scope="module")
def fitted() -> Any:
    adata = sc_ldvae.datasets.simulate(700, 120, N_TRUE, n_batches=2, rng=3)
    sc_ldvae.tl.ldvae(adata, N_LATENT, batch_key="batch", progress=False)
    return adata


def spanned(loadings: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cosine of each true factor with the space of those that were found."""
    basis = np.linalg.qr(loadings)[0]
    return np.linalg.norm(basis.T @ (truth / np.linalg.norm(truth, axis=0)), axis=0)


@pytest.mark.parametrize(
    ("gene_likelihood", "n_batches"), [*product(("nb", "zinb", "poisson"), (1, 2)), ("bernoulli", 2)]
)
def test_the_true_factors_are_left(gene_likelihood: Any, n_batches: int) -> None:
    n_obs, n_vars, library, least = 700, 120, 2000, 0.95
    if gene_likelihood == "bernoulli":
        # Whether there is a count says less than the count, and of 2,000 nearly all genes would have some.
        n_obs, n_vars, library, least = 1500, 400, 400, 0.9
    options = {"n_batches": n_batches, "gene_likelihood": gene_likelihood, "mean_library": library}
    adata = sc_ldvae.datasets.simulate(n_obs, n_vars, N_TRUE, rng=n_batches, **options)
    batch_key = "batch" if n_batches > 1 else None
    sc_ldvae.tl.ldvae(adata, N_LATENT, gene_likelihood=gene_likelihood, batch_key=batch_key, progress=False)
    loadings = adata.varm["ldvae_loadings"]
    left = loadings.any(0)
    assert N_TRUE <= left.sum() <= N_TRUE + 1
    assert (spanned(loadings[:, left], adata.varm["true_loadings"]) > least).all()


def test_without_a_prior_all_are_left() -> None:
    adata = sc_ldvae.datasets.simulate(700, 120, N_TRUE, rng=3)
    sc_ldvae.tl.ldvae(adata, N_LATENT, loadings_prior=None, progress=False)
    assert adata.varm["ldvae_loadings"].any(0).all()
    assert "prior_scale" not in adata.uns["ldvae"]
    assert "loadings_prior" not in adata.uns["ldvae"]["params"]
    assert "prior_scale" not in sc_ldvae.get.factors(adata)


@pytest.mark.parametrize("options", [{"max_epochs": 2}, {"latent_distribution": "ln"}], ids=str)
def test_short_fits_and_shares_of_one_keep_all(options: dict[str, Any]) -> None:
    adata = sc_ldvae.datasets.simulate(700, 120, N_TRUE, rng=3)
    sc_ldvae.tl.ldvae(adata, N_LATENT, progress=False, **options)
    assert not sc_ldvae.get.factors(adata)["vanished"].any()


def test_what_vanished_is_zero_and_stands_last(fitted: Any) -> None:
    loadings, frame = fitted.varm["ldvae_loadings"], sc_ldvae.get.factors(fitted)
    vanished = frame["vanished"].to_numpy()
    assert loadings.shape == (120, N_LATENT)
    assert 0 < vanished.sum() < N_LATENT
    assert_array_equal(vanished, np.sort(vanished))
    for matrix in (loadings, fitted.varm["ldvae_loadings_se"], fitted.obsm["X_ldvae"]):
        assert_array_equal(matrix.any(0), ~vanished)
    np.testing.assert_allclose(fitted.obsm["X_ldvae_variance"][:, vanished], 1, rtol=1e-6)
    assert_array_equal(frame["explained_deviance"][vanished], 0)
    assert_array_equal(frame["prior_scale"] == 0, vanished)
    # The scale of a factor's prior is about that of its loadings.
    left = ~vanished
    np.testing.assert_allclose(frame["prior_scale"][left], loadings[:, left].std(0), rtol=0.5)


def test_counts_are_decoded_as_ever(fitted: Any) -> None:
    decoder, library = fitted.uns["ldvae"]["decoder"], fitted.obs["ldvae_library"].to_numpy(float)
    levels = (fitted.obs["batch"].to_numpy()[:, None] == fitted.uns["ldvae"]["batches"]).astype(float)
    eta = fitted.obsm["X_ldvae"].astype(float) @ fitted.varm["ldvae_loadings"].T + decoder["intercept"]
    mean = library[:, None] * softmax(eta + levels @ decoder["covariate_effects"].T, axis=1)
    found = sc_ldvae.tl.normalized_expression(fitted, library="own", progress=False)
    np.testing.assert_allclose(found, mean, rtol=1e-4)


def test_cells_are_placed_again_as_they_were(fitted: Any) -> None:
    again = sc_ldvae.tl.project(fitted, fitted, key_added="again", copy=True, progress=False)
    for key in ("X_ldvae", "X_ldvae_variance"):
        assert_array_equal(again.obsm[key.replace("X_ldvae", "again")], fitted.obsm[key])


def test_files_keep_it(fitted: Any, tmp_path: Any) -> None:
    import anndata as ad

    fitted.write_h5ad(tmp_path / "fit.h5ad")
    frame = sc_ldvae.get.factors(ad.read_h5ad(tmp_path / "fit.h5ad"))
    np.testing.assert_array_equal(frame, sc_ldvae.get.factors(fitted))


def test_shown_by_default_are_those_that_are_left(fitted: Any) -> None:
    left = sc_ldvae.get.factors(fitted).query("not vanished").index.tolist()
    # Frames of loadings go with the arrays.
    for rotation in (None, "varimax"):
        loadings = sc_ldvae.get.loadings(fitted, rotation=rotation)
        assert_array_equal(loadings.columns[loadings.any()], left)
        assert loadings.shape[1] == N_LATENT
    assert sc_ldvae.get.top_genes(fitted, 2).index.get_level_values("factor").unique().tolist() == left
    assert len(sc_ldvae.pl.loadings(fitted, show=False)) == len(left)


def _scatter(adata: Any, factors: list[int]) -> None:
    sc_ldvae.pl.loadings_scatter(adata, *factors, show=False)


def _enrichment(adata: Any, factors: list[int]) -> None:
    net = pd.DataFrame({"source": "set", "target": adata.var_names[:10]})
    sc_ldvae.tl.enrichment(adata, net, factors=factors)


@pytest.mark.parametrize(
    "function",
    [
        lambda adata, factors: sc_ldvae.get.top_genes(adata, factors=factors),
        lambda adata, factors: sc_ldvae.pl.loadings(adata, factors, show=False),
        lambda adata, factors: sc_ldvae.pl.loadings_heatmap(adata, factors=factors, show=False),
        lambda adata, factors: sc_ldvae.pl.factors(adata, factors, show=False),
        _scatter,
        _enrichment,
    ],
    ids=["top_genes", "loadings", "loadings_heatmap", "factors", "loadings_scatter", "enrichment"],
)
def test_what_vanished_has_no_genes_to_show(fitted: Any, function: Any) -> None:
    sentence = f"^factors holds 'ldvae{N_LATENT}', which has vanished: .* Factors left: 'ldvae1', 'ldvae2', 'ldvae3'"
    with pytest.raises(ValueError, match=sentence):
        function(fitted, [1, N_LATENT])


def test_what_vanished_can_be_left_out(fitted: Any) -> None:
    assert not sc_ldvae.get.loadings(fitted, [N_LATENT]).to_numpy().any()
    # To be without it is no change.
    kept = list(range(1, N_LATENT))
    np.testing.assert_array_equal(
        sc_ldvae.tl.normalized_expression(fitted, factors=kept, progress=False),
        sc_ldvae.tl.normalized_expression(fitted, progress=False),
    )


def test_tools_say_nothing_of_what_vanished(fitted: Any) -> None:
    adata, left = fitted.copy(), sc_ldvae.get.factors(fitted).query("not vanished").index.tolist()
    sc_ldvae.tl.stability(adata, n_seeds=2, progress=False)
    assert sc_ldvae.get.stability(adata).index.tolist() == left
    assert adata.uns["ldvae_stability"]["score"].shape == (N_LATENT,)
    assert np.isnan(adata.uns["ldvae_stability"]["score"][len(left) :]).all()
    # Three factors of 700 cells come back.
    assert (sc_ldvae.get.stability(adata)["score"][:N_TRUE] > 0.5).all()
    sc_ldvae.tl.associate(adata, ["batch"])
    assert set(adata.uns["ldvae_associations"]["factor"]) == set(left)
    sc_ldvae.tl.explained_deviance(adata, "batch", progress=False)
    assert sc_ldvae.get.explained_deviance(adata).index.tolist() == left
    assert sc_ldvae.get.explained_deviance(adata, by_group=True).columns[2:].tolist() == left
    sc_ldvae.tl.rotate(adata, key_added="varimax")
    turned = sc_ldvae.get.factors(adata, key="varimax")
    assert_array_equal(turned["vanished"], sc_ldvae.get.factors(adata)["vanished"])
    assert "prior_scale" not in turned
    assert not adata.obsm["varimax"][:, len(left) :].any()


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-cell"])
def test_a_model_without_some_factors_is_the_model_where_they_are_zero(likelihood: Any, dispersion: Any) -> None:
    options = ModelOptions(n_latent=5, gene_likelihood=likelihood, dispersion=dispersion, n_hidden=8)
    levels, kept = Levels(n_batch=2, n_continuous_cov=1), np.array([True, False, False, True, False])
    generator = torch.Generator().manual_seed(0)
    model = LDVAE(
        12, n_latent=5, gene_likelihood=likelihood, dispersion=dispersion, n_hidden=8, n_batch=2, n_continuous_cov=1,
        generator=generator,
    )  # fmt: skip
    x = torch.poisson(torch.full((30, 12), 3.0), generator=generator)
    batch, covariate = torch.arange(30) % 2, torch.randn(30, 1, generator=generator)
    model.set_library_prior(x.sum(1), batch)
    model.train()(x, batch, cont_covs=covariate, generator=generator)
    cells = Cells(InMemory(csr_matrix(x.numpy())))
    request = Request(cells, options, levels, Schedule(), torch.device("cpu"))
    small = without_vanished(model.eval(), kept, request)
    back = with_vanished(small, kept, request)
    assert (small.n_latent, back.n_latent) == (2, 5)
    assert (small.training, back.training) == (False, False)
    with torch.no_grad():
        z, whole = back.encode(x).z, model.encode(x).z
        assert_array_equal(z.mean[:, kept], whole.mean[:, kept])
        assert_array_equal(z.variance[:, kept], whole.variance[:, kept])
        assert not z.mean[:, ~kept].any()
        torch.testing.assert_close(z.variance[:, ~kept], torch.ones(30, 3))
        covariates, library = back.covariates(batch, cont_covs=covariate), x.sum(1, keepdim=True).log()
        decoded = back.decode(z.mean, covariates, library), small.decode(z.mean[:, kept], covariates, library)
        # BatchNorm has learnt the covariance of fewer inputs: the model itself, with those at zero, has another scale.
        torch.testing.assert_close(decoded[0].log_mu, decoded[1].log_mu)
        for one, other in zip(decoded[0].parts.values(), decoded[1].parts.values(), strict=True):
            torch.testing.assert_close(one, other)
    assert not back.get_loadings()[:, ~kept].any()


def test_effects_of_small_batches_shrink() -> None:
    adata = sc_ldvae.datasets.simulate(400, 150, 2, n_batches=20, rng=5)
    truth = adata.varm["true_batch_effects"]
    errors = []
    for prior in ("adaptive", None):
        sc_ldvae.tl.ldvae(adata, 4, batch_key="batch", loadings_prior=prior, progress=False)
        effects = sc_ldvae.get.covariate_effects(adata)["batch"]
        errors.append(float(((effects[[f"batch{i}" for i in range(20)]].to_numpy() - truth) ** 2).mean()))
    assert errors[0] < 0.8 * errors[1]
    assert record.read(adata).prior_scale is None


def test_unknown_priors_are_refused() -> None:
    adata = sc_ldvae.datasets.simulate(60, 20, 2)
    with pytest.raises(ValueError, match=r"^loadings_prior='flat' is unknown\. Choose 'adaptive' or None"):
        sc_ldvae.tl.ldvae(adata, 2, loadings_prior="flat", progress=False)  # type: ignore[arg-type]
