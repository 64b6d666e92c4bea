"""Genes outside of a fit: against a fit of them, the truth, SciPy's optimum and what is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import nbinom

import sc_ldvae
from sc_ldvae import get, pl, record, tl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

QUIET: dict[str, Any] = {"progress": False}


def correlation(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    one, other = (values - np.average(values, weights=weights, axis=0) for values in (one, other))
    return float((weights * one * other).sum() / np.sqrt((weights * one**2).sum() * (weights * other**2).sum()))


def seen_from(latent: np.ndarray, other: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Loadings of `other` latent in the frame of this one: the same factors have other scales in two fits."""
    inputs = np.column_stack([latent, np.ones(len(latent))])
    return loadings @ np.linalg.lstsq(inputs, other, rcond=None)[0][:-1].T


@pytest.fixture(scope="module")
def counts() -> AnnData:
    adata = sc_ldvae.datasets.simulate(600, 90, 3, n_batches=2, rng=3)
    adata.var["chosen"] = np.arange(90) % 3 > 0
    adata.obs["age"] = np.random.default_rng(0).normal(40, 9, adata.n_obs)
    adata.obs["side"] = np.where(adata.obsm["true_latent"][:, 0] > 0, "left", "right")
    return adata


@pytest.fixture(scope="module")
def before(counts: AnnData) -> AnnData:
    """A fit of two thirds of the genes, with covariates; change a copy."""
    adata = counts.copy()
    tl.ldvae(adata, 5, mask_var="chosen", batch_key="batch", continuous_covariate_keys=["age"], **QUIET)
    return adata


@pytest.fixture(scope="module")
def extended(before: AnnData) -> AnnData:
    """Change a copy."""
    adata = before.copy()
    tl.extend(adata, **QUIET)
    return adata


def test_genes_left_out_have_the_loadings_that_they_have_when_fitted(pbmc_counts: AnnData) -> None:
    """Real cells; the two fits differ in a tenth of the genes."""
    whole, part = pbmc_counts.copy(), pbmc_counts.copy()
    left_out = np.random.default_rng(0).permutation(part.n_vars)[: part.n_vars // 10]
    part.var["chosen"] = ~np.isin(np.arange(part.n_vars), left_out)
    tl.ldvae(whole, **QUIET)
    tl.ldvae(part, mask_var="chosen", **QUIET)
    tl.extend(part, **QUIET)
    names = part.var_names[left_out].intersection(get.loadings(part).index)
    assert len(names) == len(left_out)
    fitted, found = get.loadings(whole).loc[names].to_numpy(), get.loadings(part).loc[names].to_numpy()
    errors = get.loadings_se(part).loc[names].to_numpy()
    left = get.factors(part)["vanished"].to_numpy() == 0
    expected = seen_from(part.obsm["X_ldvae"][:, left], whole.obsm["X_ldvae"], fitted)
    assert correlation(expected, found[:, left], 1 / errors[:, left] ** 2) >= 0.98


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_the_truth_is_within_the_intervals(likelihood: Any) -> None:
    adata = sc_ldvae.datasets.simulate(1200, 150, 3, gene_likelihood=likelihood, rng=1)
    outside = np.arange(150) % 3 == 0
    tl.ldvae(adata, 3, mask_var=~outside, gene_likelihood=likelihood, loadings_prior=None, **QUIET)
    tl.extend(adata, **QUIET)
    truth = seen_from(adata.obsm["X_ldvae"], adata.obsm["true_latent"], adata.varm["true_loadings"])
    truth -= truth[~outside].mean(0)
    inside = np.abs(adata.varm["ldvae_loadings"] - truth) < 1.96 * adata.varm["ldvae_loadings_se"]
    # No less than those of the fit, whose errors know of no error of the latent either.
    assert inside[outside].mean() > max(0.85, inside[~outside].mean() - 0.04)


def test_a_loading_is_the_mode_of_the_posterior(extended: AnnData) -> None:
    """Of a gene with SciPy's negative binomial, priors and optimiser, from what stands in the object."""
    stored, gene = extended.uns["ldvae"], 4
    others, fitted = stored["others"], stored["decoder"]
    training = ~extended.obs["ldvae_held_out"].to_numpy()
    batches = pd.get_dummies(extended.obs["batch"]).to_numpy(np.float64)
    age = extended.obs["age"].to_numpy()
    covariates = np.column_stack([batches, (age - age.mean()) / age.std()])
    left = np.abs(fitted["loadings"]).any(0)
    inputs = np.column_stack([extended.obsm["X_ldvae"][:, left], covariates, np.ones(len(age))])[training]
    eta = np.column_stack([extended.obsm["X_ldvae"], covariates]) @ np.hstack(
        [fitted["loadings"], fitted["covariate_effects"]]
    ).T.astype(np.float64)
    offset = np.log(extended.obs["ldvae_library"].to_numpy()) - logsumexp(eta + fitted["intercept"], axis=1)
    x = extended[training, others["genes"][gene]].X.toarray().ravel()
    effects = (fitted["covariate_effects"].astype(np.float64) ** 2).mean(0)
    widths = [
        *(fitted["loadings"][:, left].astype(np.float64) ** 2).mean(0),
        *np.repeat(effects[:2].mean(), 2),
        effects[2],
    ]

    def minus_log_posterior(parameters: np.ndarray) -> float:
        *coefficients, log_theta = parameters
        # A line search may go anywhere.
        theta, mean = np.exp(log_theta), np.exp(np.minimum(inputs @ coefficients + offset[training], 20))
        log_prior = -0.5 * (np.square(coefficients[:-1]) / widths).sum() - 0.5 * log_theta**2
        return -nbinom.logpmf(x, theta, theta / (theta + mean)).sum() - log_prior

    start = [*np.zeros(inputs.shape[1] - 1), np.log(x.sum() / np.exp(offset[training]).sum()), 0]
    best = minimize(minus_log_posterior, start, method="BFGS")
    n_left = int(left.sum())
    steps = 1e-3 * np.eye(len(best.x))[:-1]
    # With the dispersion as it is: central differences.
    curvature = [
        [
            sum(i * j * minus_log_posterior(best.x + i * one + j * other) for i in (-1, 1) for j in (-1, 1)) / 4e-6
            for one in steps
        ]
        for other in steps
    ]
    errors = np.sqrt(np.diag(np.linalg.inv(curvature)))[:n_left]
    # To a small part of its error.
    np.testing.assert_allclose(others["loadings"][gene, left], best.x[:n_left], atol=0.1 * errors.min())
    np.testing.assert_allclose(others["covariate_effects"][gene], best.x[n_left : n_left + 3], atol=0.01)
    found = extended.varm["ldvae_loadings_se"][extended.var_names == others["genes"][gene]]
    np.testing.assert_allclose(found[0, left], errors, rtol=0.03)


def test_nothing_of_the_fit_changes(before: AnnData, extended: AnnData) -> None:
    fitted = before.var["chosen"].to_numpy()
    for name in ("ldvae_loadings", "ldvae_loadings_se"):
        np.testing.assert_array_equal(extended.varm[name][fitted], before.varm[name][fitted])
        assert (extended.varm[name][~fitted][:, ~record.read(before).vanished] != 0).all()
    np.testing.assert_array_equal(extended.obsm["X_ldvae"], before.obsm["X_ldvae"])
    assert tl.elbo(extended, **QUIET) == tl.elbo(before, **QUIET)
    pd.testing.assert_frame_equal(get.loadings(extended, genes="fitted"), get.loadings(before))
    assert get.loadings(extended).index.tolist() == before.var_names.tolist()


def test_expression_is_that_of_the_formula(extended: AnnData) -> None:
    stored = extended.uns["ldvae"]
    covariates = np.column_stack(
        [
            pd.get_dummies(extended.obs["batch"]),
            (extended.obs["age"] - extended.obs["age"].mean()) / extended.obs["age"].std(ddof=0),
        ]
    ).astype(np.float64)

    def eta(part: Mapping[str, np.ndarray]) -> np.ndarray:
        return (
            extended.obsm["X_ldvae"] @ part["loadings"].T + covariates @ part["covariate_effects"].T + part["intercept"]
        )

    expected = np.exp(eta(stored["others"]) - logsumexp(eta(stored["decoder"]), axis=1, keepdims=True))
    frame = tl.normalized_expression(extended, **QUIET)
    assert frame.columns.tolist() == [*stored["genes"], *stored["others"]["genes"]]
    np.testing.assert_allclose(frame[stored["others"]["genes"]], expected, rtol=1e-4)
    np.testing.assert_allclose(frame[stored["genes"]].sum(axis=1), 1, rtol=1e-5)
    some = [stored["others"]["genes"][5], stored["genes"][7], stored["others"]["genes"][2]]
    pd.testing.assert_frame_equal(tl.normalized_expression(extended, genes=some, **QUIET), frame[some])
    adata = extended.copy()
    tl.normalized_expression(adata, key_added="denoised", **QUIET)
    np.testing.assert_array_equal(adata.layers["denoised"], frame[adata.var_names])


def test_tools_and_plots_know_them(extended: AnnData, before: AnnData) -> None:
    adata = extended.copy()
    outside = set(adata.var_names[~adata.var["chosen"]])
    tl.differential_expression(adata, "side", **QUIET)
    frame = sc.get.rank_genes_groups_df(adata, "left").set_index("names")
    assert set(frame.index) == set(adata.var_names)
    # Which of two groups has more of a gene shows in its counts, too.
    means = [np.log(adata[adata.obs["side"] == side].X.mean(0)) for side in ("left", "right")]
    change = pd.Series(np.asarray(means[0] - means[1]).ravel(), adata.var_names)[list(outside)]
    assert np.corrcoef(frame["logfoldchanges"][change.index], change)[0, 1] > 0.9
    fitted = before.copy()
    tl.differential_expression(fitted, "side", **QUIET)
    of_fit = sc.get.rank_genes_groups_df(fitted, "left").set_index("names")["scores"]
    for gene in adata.var_names[adata.var["chosen"]]:
        assert frame["scores"][gene] == of_fit[gene]
    net = pd.DataFrame({"source": "set", "target": list(outside)[:10]})
    tl.enrichment(adata, net)
    assert (get.enrichment(adata)["n_targets"] == 10).all()
    table = get.top_genes(adata, 30)
    assert set(table.index.get_level_values("gene")[~table["fitted"]]) <= outside
    assert not table["fitted"].all()
    assert "fitted" not in get.top_genes(adata, 30, genes="fitted")
    (axis,) = pl.loadings(adata, [1], 15, show=False)
    styles = {label.get_text(): label.get_fontstyle() for label in axis.get_yticklabels()}
    assert {name for name, style in styles.items() if style == "italic"} == set(styles) & outside != set()
    (axis,) = pl.loadings(adata, [1], 15, genes="fitted", show=False)
    assert not {label.get_text() for label in axis.get_yticklabels()} & outside
    plt.close("all")


def test_some_after_others(before: AnnData, extended: AnnData) -> None:
    adata, outside = before.copy(), before.var_names[~before.var["chosen"]]
    tl.extend(adata, outside[[4, 1]], **QUIET)
    tl.extend(adata, [outside[2], outside[1]], **QUIET)
    assert adata.uns["ldvae"]["others"]["genes"].tolist() == outside[[4, 1, 2]].tolist()
    for name in ("ldvae_loadings", "ldvae_loadings_se"):
        np.testing.assert_allclose(adata.varm[name][::3][[4, 1, 2]], extended.varm[name][::3][[4, 1, 2]], rtol=1e-4)
    assert not adata.varm["ldvae_loadings"][::3][5:].any()
    assert np.isnan(adata.varm["ldvae_loadings_se"][::3][5:]).all()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_keep_them(suffix: str, extended: AnnData, assert_same: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / f"extended{suffix}"
    (extended.write_h5ad if suffix == ".h5ad" else extended.write_zarr)(path)
    back = ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)
    pd.testing.assert_frame_equal(get.loadings_se(back), get.loadings_se(extended))
    query = back[:50, ::-1].copy()
    for name in ("obsm", "varm", "uns"):
        setattr(query, name, {})
    tl.project(query, back, **QUIET)
    assert_same(query.varm["ldvae_loadings"], back.varm["ldvae_loadings"][::-1])
    back.uns["ldvae"]["others"]["loadings"][0, 0] += 1
    with pytest.raises(ValueError, match=r"uns\['ldvae'\] is damaged"):
        get.loadings(back)


def test_rotations_and_new_names_take_them_along(extended: AnnData, before: AnnData) -> None:
    adata, rotated = extended.copy(), before.copy()
    tl.rotate(adata, "promax", key_added="turned")
    tl.rotate(rotated, "promax", key_added="turned")
    tl.extend(rotated, key="turned", **QUIET)
    # Whether genes are added before the rotation or after it.
    for name in ("turned", "turned_se"):
        np.testing.assert_allclose(adata.varm[name], rotated.varm[name], rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(
        tl.normalized_expression(adata, key="turned", **QUIET), tl.normalized_expression(adata, **QUIET), rtol=1e-4
    )
    tl.rename_genes(adata, {"gene0": "CD3E", "gene1": "LYZ"})
    assert get.loadings(adata).index[:2].tolist() == ["CD3E", "LYZ"]
    assert record.read(adata).other_genes[0] == "CD3E"


@pytest.mark.parametrize(
    ("likelihood", "latent", "library"),
    [("bernoulli", "normal", 40), ("nb_background", "normal", 2000), ("nb", "ln", 2000)],
)
def test_other_models(likelihood: Any, latent: Any, library: int) -> None:
    adata = sc_ldvae.datasets.simulate(600, 80, 2, gene_likelihood=likelihood, mean_library=library, rng=2)
    outside = np.arange(80) % 4 == 0
    options: dict[str, Any] = {"gene_likelihood": likelihood, "latent_distribution": latent, **QUIET}
    whole = tl.ldvae(adata, 2, copy=True, **options)
    tl.ldvae(adata, 2, mask_var=~outside, **options)
    tl.extend(adata, **QUIET)
    # The frames of the fits differ; what they expect of the counts does not.
    logs = [
        np.log(tl.normalized_expression(one, **QUIET))[adata.var_names[outside]].to_numpy() for one in (adata, whole)
    ]
    logs = [log - log.mean(0) for log in logs]
    assert np.corrcoef(*map(np.ravel, logs))[0, 1] > 0.9
    assert 0.7 < logs[0].std() / logs[1].std() < 1.3


def test_a_modality_of_a_joint_fit(joint: MuData, assert_same: Callable[..., None], tmp_path: Path) -> None:
    mdata = joint.copy()
    tl.extend(mdata, modality="rna", **QUIET)
    outside = mdata["rna"].var_names[np.arange(40) % 4 == 0]
    assert set(outside) == set(record.read(mdata["rna"]).other_genes)
    # The fit of all modalities knows them, too.
    frame = get.loadings(mdata)
    pd.testing.assert_frame_equal(frame.loc["rna"], get.loadings(mdata, modality="rna"), check_names=False)
    assert_same(get.loadings(mdata, genes="fitted"), get.loadings(joint))
    rows = np.asarray(mdata.varmap["rna"]).ravel()
    assert_same(mdata.varm["ldvae_loadings"][rows > 0][np.argsort(rows[rows > 0])], mdata["rna"].varm["ldvae_loadings"])
    mdata.write_h5mu(tmp_path / "extended.h5mu")
    pd.testing.assert_frame_equal(get.loadings(mudata.read_h5mu(tmp_path / "extended.h5mu")), frame)


def test_bits_do_not_depend_on_the_threads(before: AnnData, assert_same: Callable[..., None]) -> None:
    found, n_threads = [], torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(tl.extend(before, copy=True, **QUIET))
    finally:
        torch.set_num_threads(n_threads)
    assert_same(*found)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"genes": ["gene1"]}, "^genes holds 'gene1', which has loadings by the fit", id="fitted"),
        pytest.param({"genes": ["CD3E"]}, "^genes holds 'CD3E', which is not among the 90 var_names", id="unknown"),
        pytest.param({"genes": ["gene0", "gene0"]}, "^genes holds 'gene0' more than once", id="twice"),
        pytest.param({"genes": []}, "^genes is empty", id="empty"),
        pytest.param({"genes": ["gene3"]}, "^1 genes .* have no counts .*'gene3'.* Leave them out", id="no counts"),
        pytest.param({"layer": "counts"}, "^layer='counts' is not in layers", id="layer"),
        pytest.param({"key": "foo"}, r"^uns\['foo'\] holds no fit", id="fit"),
    ],
)
def test_what_is_refused_changes_nothing(
    arguments: dict[str, Any],
    sentence: str,
    before: AnnData,
    unchanged: Callable[[AnnData], AbstractContextManager[None]],
) -> None:
    adata = before.copy()
    adata.X[:, 3] = 0
    adata.X.eliminate_zeros()
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        tl.extend(adata, **QUIET, **arguments)


@pytest.mark.parametrize("dtype", ["category", "string", object])
def test_a_symbol_is_told_from_a_name_that_is_nowhere(before: AnnData, dtype: Any) -> None:
    adata = before.copy()
    adata.var["n_cells"] = 3
    adata.var["symbol"] = pd.Series([None, *(f"S{i}" for i in range(1, adata.n_vars))], adata.var_names, dtype=dtype)
    sentence = r"^genes holds 'S3', .* var\['symbol'\] calls 'gene3' so.*rename_genes\(adata, 'symbol'\)\.$"
    with pytest.raises(ValueError, match=sentence):
        tl.extend(adata, ["S3"], **QUIET)
    with pytest.raises(ValueError, match=r"which is not among the 90 var_names\.$"):
        tl.extend(adata, ["CD3E"], **QUIET)


def test_of_all_genes_those_without_counts_are_left_out(before: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = before.copy()
    adata.X[:, 3] = 0
    adata.X.eliminate_zeros()
    with caplog.at_level("INFO", "sc_ldvae"):
        tl.extend(adata, **QUIET)
    assert "gene3" not in get.loadings(adata).index
    assert "1 genes outside of the fit have no counts" in caplog.text
    fitted = adata[:, adata.var["chosen"]].copy()
    with pytest.raises(ValueError, match=r"^All genes of data are in the fit uns\['ldvae'\]"):
        tl.extend(fitted, **QUIET)
