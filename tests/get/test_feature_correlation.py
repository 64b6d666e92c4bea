"""Correlation of genes in closed form, against draws from the posterior decoded in NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy.special import log_softmax, softmax

import sc_ldvae

BATCHES = ["batch0", "batch1"]


@pytest.fixture(scope="module", params=["normal", "ln"])
def adata(request: pytest.FixtureRequest) -> AnnData:
    adata = sc_ldvae.datasets.simulate(400, 30, 3, n_batches=2, rng=0)
    sc_ldvae.tl.ldvae(
        adata, 3, batch_key="batch", latent_distribution=request.param, max_epochs=60, rng=0, progress=False
    )
    # Tighter than this short fit leaves them: the closed form is of second order in the posterior.
    adata.obsm["X_ldvae_variance"] *= 0.3
    return adata


def drawn_log_proportions(adata: AnnData, batch: str | None, n_draws: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    latent, variance = adata.obsm["X_ldvae"].astype(np.float64), adata.obsm["X_ldvae_variance"]
    decoder: dict[str, Any] = adata.uns["ldvae"]["decoder"]
    own = adata.obs["batch"].astype(str).to_numpy()
    c = np.stack([(own == level) if batch is None else np.full(len(own), batch == level) for level in BATCHES], 1)
    draws = []
    for _ in range(n_draws):
        noise = rng.standard_normal(latent.shape) * np.sqrt(variance)
        composition = adata.uns["ldvae"]["params"]["latent_distribution"] == "ln"
        z = softmax(np.log(latent) + noise, axis=1) if composition else latent + noise
        draws.append(
            log_softmax(z @ decoder["loadings"].T + decoder["intercept"] + c @ decoder["covariate_effects"].T, axis=1)
        )
    return np.concatenate(draws)


@pytest.mark.parametrize("batch", [None, "batch1"], ids=["own-batch", "one-batch"])
def test_correlation_is_that_of_posterior_draws(adata: AnnData, batch: str | None) -> None:
    expected = np.corrcoef(drawn_log_proportions(adata, batch).T)
    frame = sc_ldvae.get.feature_correlation(adata, batch=batch)
    np.testing.assert_allclose(frame, expected, atol=0.02)
    assert np.abs(expected - np.eye(len(expected))).max() > 0.5
    assert frame.index.tolist() == frame.columns.tolist() == adata.uns["ldvae"]["genes"].tolist()
    assert (np.diag(frame) == 1).all()


def test_mean_over_batches_is_between_the_batches(adata: AnnData) -> None:
    frame = sc_ldvae.get.feature_correlation(adata, batch="mean")
    each = [sc_ldvae.get.feature_correlation(adata, batch=batch) for batch in BATCHES]
    np.testing.assert_allclose(frame, (each[0] + each[1]) / 2, atol=0.05)


def test_chosen_genes_are_a_part_of_all(adata: AnnData) -> None:
    genes = ["gene7", "gene2", "gene11"]
    part = sc_ldvae.get.feature_correlation(adata, genes=genes)
    every = sc_ldvae.get.feature_correlation(adata)
    np.testing.assert_allclose(part, every.loc[genes, genes], rtol=1e-12)


def test_counts_are_not_needed(adata: AnnData) -> None:
    expected = sc_ldvae.get.feature_correlation(adata)
    slim = adata.copy()
    del slim.X
    np.testing.assert_array_equal(sc_ldvae.get.feature_correlation(slim), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"genes": ["CD3E"]}, "^genes holds 'CD3E', which is not among the 30 genes", id="gene"),
        pytest.param({"batch": "b"}, "^'b' is no level of the covariate 'batch'", id="batch"),
    ],
)
def test_what_the_fit_does_not_know_is_refused(adata: AnnData, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sc_ldvae.get.feature_correlation(adata, **arguments)


@pytest.fixture(scope="module")
def several() -> MuData:
    """Of one modality without a library, which a fifth of the cells lack; two genes of one name."""
    rng = np.random.default_rng(0)
    rna = sc_ldvae.datasets.simulate(300, 20, 2, n_batches=2, rng=0)
    log_mean = rng.normal(3, 0.5, 6) + rna.obsm["true_latent"] @ rng.normal(0, 0.5, (2, 6))
    prot = AnnData(rng.poisson(5 + np.exp(log_mean))[:240].astype(np.float32), obs=rna.obs[:240][[]])
    prot.var_names = ["gene0", *(f"protein{i}" for i in range(5))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "var_names are not unique")
        mdata = MuData({"rna": rna, "prot": prot})
    mdata.obs["batch"] = mdata["rna"].obs["batch"].reindex(mdata.obs_names)
    likelihoods = {"rna": "nb", "prot": "nb_background"}
    sc_ldvae.tl.ldvae(mdata, 2, modalities=likelihoods, batch_key="batch", max_epochs=40, progress=False)
    mdata.obsm["X_ldvae_variance"] *= 0.3
    return mdata


@pytest.mark.parametrize("batch", [None, "batch1"], ids=["own-batch", "one-batch"])
def test_modalities_correlate_as_in_posterior_draws(several: MuData, batch: str | None) -> None:
    rng = np.random.default_rng(0)
    latent, variance = several.obsm["X_ldvae"].astype(np.float64), several.obsm["X_ldvae_variance"]
    own = several.obs["batch"].astype(str).to_numpy()
    c = np.stack([(own == level) if batch is None else np.full(len(own), batch == level) for level in BATCHES], 1)
    rna, prot = (several[name].uns["ldvae"]["decoder"] for name in ("rna", "prot"))
    draws = []
    for _ in range(300):
        z = latent + rng.standard_normal(latent.shape) * np.sqrt(variance)
        log_means = [
            z @ decoder["loadings"].T + decoder["intercept"] + c @ decoder["covariate_effects"].T
            for decoder in (rna, prot)
        ]
        draws.append(np.hstack([log_softmax(log_means[0], axis=1), log_means[1]]))
    expected = np.corrcoef(np.concatenate(draws).T)
    frame = sc_ldvae.get.feature_correlation(several, batch=batch)
    np.testing.assert_allclose(frame, expected, atol=0.02)
    assert np.abs(expected[:20, 20:]).max() > 0.5
    assert frame.index.tolist() == [("rna", f"gene{i}") for i in range(20)] + [
        ("prot", name) for name in several["prot"].var_names
    ]
    assert frame.index.equals(frame.columns)
    assert frame.index.names == ["modality", "gene"]


def test_names_are_found_in_every_modality(several: MuData) -> None:
    every = sc_ldvae.get.feature_correlation(several)
    part = sc_ldvae.get.feature_correlation(several, genes=["protein3", "gene0"])
    wanted = [("rna", "gene0"), ("prot", "protein3"), ("prot", "gene0")]
    assert part.index.tolist() == wanted
    np.testing.assert_allclose(part, every.loc[wanted, wanted], rtol=1e-12)
    alone = sc_ldvae.get.feature_correlation(several, genes="protein3", modality="prot")
    assert alone.index.tolist() == ["protein3"]
    with pytest.raises(ValueError, match=r"^genes holds 'CD3E', which is not among the genes of the fit in any of its"):
        sc_ldvae.get.feature_correlation(several, genes=["gene0", "CD3E"])
    with pytest.raises(ValueError, match=r"^genes holds 'gene0' more than once"):
        sc_ldvae.get.feature_correlation(several, genes=["gene0", "gene0"])
