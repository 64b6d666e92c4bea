"""Known answers: simulated factors, batches and covariates come back, and so does known biology."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scanpy as sc
from scipy.optimize import linear_sum_assignment
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import sc_ldvae

if TYPE_CHECKING:
    from anndata import AnnData


def matched_cosines(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """|cosine| of each true column with the found column that the Hungarian method gives it."""
    unit = [matrix / np.linalg.norm(matrix, axis=0) for matrix in (found, true)]
    cosines = np.abs(unit[0].T @ unit[1])
    rows, columns = linear_sum_assignment(-cosines)
    return cosines[rows, columns][np.argsort(columns)]


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson", "bernoulli"])
def test_simulated_loadings_come_back(likelihood: str) -> None:
    # Of 2,000 counts nearly all genes would have some.
    n_vars, library = (400, 400) if likelihood == "bernoulli" else (300, 2000)
    adata = sc_ldvae.datasets.simulate(2000, n_vars, 5, gene_likelihood=likelihood, mean_library=library, rng=1)
    sc_ldvae.tl.ldvae(adata, 5, gene_likelihood=likelihood, progress=False)
    cosines = matched_cosines(adata.varm["ldvae_loadings"], adata.varm["true_loadings"])
    assert cosines.mean() >= 0.9


@pytest.mark.parametrize("latent", ["normal", "ln"])
def test_simulated_latent_is_linear_in_the_found_one(latent: str) -> None:
    adata = sc_ldvae.datasets.simulate(2000, 300, 5, rng=1)
    sc_ldvae.tl.ldvae(adata, 6 if latent == "ln" else 5, latent_distribution=latent, progress=False)
    found = adata.obsm["X_ldvae"] if latent == "normal" else np.log(adata.obsm["X_ldvae"])
    design = np.column_stack([found, np.ones(len(found))])
    truth = adata.obsm["true_latent"]
    fitted = design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    assert (1 - ((truth - fitted) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0) > 0.7).all()


def test_simulated_covariate_effects_library_and_dispersion_come_back() -> None:
    adata = sc_ldvae.datasets.simulate(3000, 200, 3, n_batches=3, n_continuous=1, rng=2)
    sc_ldvae.tl.ldvae(adata, 3, batch_key="batch", continuous_covariate_keys=["covariate1"], progress=False)
    effects = sc_ldvae.get.covariate_effects(adata)
    for i, truth in enumerate(adata.varm["true_batch_effects"].T):
        assert np.corrcoef(effects["batch", f"batch{i}"], truth)[0, 1] > 0.95
    slope = np.polyfit(adata.varm["true_continuous_effects"][:, 0], effects["covariate1", ""], 1)[0]
    assert slope == pytest.approx(adata.obs["covariate1"].std(), rel=0.15)
    library = np.log(adata.obs[["true_library", "ldvae_library"]])
    assert library.corr().iloc[0, 1] > 0.97
    log_theta = adata.uns["ldvae"]["decoder"]["log_theta"][0]
    assert np.corrcoef(log_theta, np.log(adata.var["true_theta"]))[0, 1] > 0.6


def test_batch_effects_stay_out_of_the_latent() -> None:
    adata = sc_ldvae.datasets.simulate(1500, 200, 3, n_batches=2, rng=3)
    batch = adata.obs["batch"] == "batch0"

    def separation(key: str | None) -> float:
        sc_ldvae.tl.ldvae(adata, 4, batch_key=key, progress=False)
        latent = adata.obsm["X_ldvae"]
        return np.abs(latent[batch].mean(0) - latent[~batch].mean(0)).max()

    assert separation("batch") < 0.25 < separation(None)


@pytest.fixture(scope="module")
def pbmc() -> AnnData:
    adata = sc_ldvae.datasets.pbmc68k_counts()
    sc_ldvae.tl.ldvae(adata, progress=False)
    return adata


def test_known_markers_head_factors(pbmc: AnnData) -> None:
    loadings = sc_ldvae.get.loadings(pbmc)
    for markers in (["CD79A", "CD79B"], ["LYZ", "CST3"], ["GNLY", "GZMB"]):
        # Both markers among the twenty most extreme genes, out of 765, on the same side of one factor.
        ranks = np.minimum(loadings.rank(ascending=False).loc[markers].max(), loadings.rank().loc[markers].max())
        assert ranks.min() <= 20, markers


def test_cell_types_are_as_clear_as_on_principal_components(pbmc: AnnData) -> None:
    normalised = pbmc.copy()
    sc.pp.normalize_total(normalised)
    sc.pp.log1p(normalised)
    sc.pp.pca(normalised, n_comps=10)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    labels = pbmc.obs["bulk_labels"].astype(str)
    classifier = KNeighborsClassifier(15)
    ours, theirs = (
        cross_val_score(classifier, latent, labels, cv=folds).mean()
        for latent in (pbmc.obsm["X_ldvae"], normalised.obsm["X_pca"])
    )
    assert ours >= theirs - 0.01


def test_fit_beats_a_model_without_factors_on_held_out_cells(pbmc: AnnData) -> None:
    """Held-out log-likelihood against the same counts' negative binomial with one mean proportion per gene."""
    assert pbmc.uns["ldvae"]["total_explained_deviance"] > 0.2
    history = sc_ldvae.get.history(pbmc)
    assert history["elbo_held_out"].max() > history["elbo_held_out"].iloc[0] + 20
