"""Expression by the decoder, against the formula of the documentation in NumPy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import psutil
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from scipy import sparse
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import tl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

TOLERANCE = {"rtol": 1e-5, "atol": 1e-9}
# Some genes or cells and all of them are computed in different order.
ROUNDING = {"rtol": 1e-6, "atol": 0}


@pytest.fixture(scope="module")
def raw() -> AnnData:
    adata = sc_ldvae.datasets.simulate(70, 30, 3, n_batches=3, n_continuous=1, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["female", "male"], 70)
    adata.obs["year"] = 2020.0 + rng.integers(5, size=70)
    adata.var["chosen"] = np.arange(30) % 5 != 2
    return adata


def fit_of(
    raw: AnnData, fit_quickly: Callable[..., AnnData], reseal: Callable[[AnnData], None], **options: Any
) -> AnnData:
    covariates = {
        "batch_key": "batch",
        "categorical_covariate_keys": ["sex"],
        "continuous_covariate_keys": ["covariate1", "year"],
    }
    adata = fit_quickly(raw, copy=True, max_epochs=10, **covariates, **options)
    # As if the batches differed by much: a fit so short finds little.
    adata.uns["ldvae"]["decoder"]["covariate_effects"] *= 20
    reseal(adata)
    return adata


@pytest.fixture(scope="module")
def normal(raw: AnnData, fit_quickly: Callable[..., AnnData], reseal: Callable[[AnnData], None]) -> AnnData:
    return fit_of(raw, fit_quickly, reseal)


@pytest.fixture(scope="module")
def composition(raw: AnnData, fit_quickly: Callable[..., AnnData], reseal: Callable[[AnnData], None]) -> AnnData:
    return fit_of(raw, fit_quickly, reseal, latent_distribution="ln")


@pytest.fixture(scope="module")
def masked(raw: AnnData, fit_quickly: Callable[..., AnnData], reseal: Callable[[AnnData], None]) -> AnnData:
    return fit_of(raw, fit_quickly, reseal, mask_var="chosen")


@pytest.fixture
def adata(normal: AnnData) -> AnnData:
    return normal.copy()


def expression(adata: Any, **options: Any) -> Any:
    return tl.normalized_expression(adata, **{"progress": False} | options)


def by_numpy(adata: AnnData, latent: np.ndarray | None = None, **settings: Any) -> np.ndarray:
    """``softmax(Z @ loadings.T + intercept + C @ covariate_effects.T)``, with columns of obs set to a value."""
    content = adata.uns["ldvae"]
    decoder, table = content["decoder"], content["covariates"]
    latent = adata.obsm["X_ldvae"] if latent is None else latent
    columns = []
    for key, level, mean, sd in zip(*(table[name] for name in ("key", "level", "mean", "sd")), strict=True):
        values = pd.Series([settings[key]] * len(latent)) if key in settings else adata.obs[key]
        columns.append(values.astype(str) == level if level else (values - mean) / sd)
    design = np.stack([np.asarray(column, dtype=np.float64) for column in columns], 1)
    loadings, intercept, effects = (
        decoder[name].astype(np.float64) for name in ("loadings", "intercept", "covariate_effects")
    )
    return softmax(latent.astype(np.float64) @ loadings.T + intercept + design @ effects.T, axis=1)


def test_default_is_the_softmax_of_the_stored_arrays(adata: AnnData, unchanged: Callable[[AnnData], Any]) -> None:
    with unchanged(adata):
        frame = expression(adata)
    np.testing.assert_allclose(frame, by_numpy(adata), **TOLERANCE)
    assert (frame.dtypes == np.float32).all()
    assert frame.index.equals(adata.obs_names)
    assert frame.columns.tolist() == adata.var_names.tolist()


def test_some_genes_in_the_order_asked_for(adata: AnnData) -> None:
    frame = expression(adata, genes=["gene20", "gene3"])
    assert frame.columns.tolist() == ["gene20", "gene3"]
    np.testing.assert_allclose(frame, expression(adata)[["gene20", "gene3"]], **ROUNDING)
    assert expression(adata, genes="gene7").columns.tolist() == ["gene7"]
    assert expression(adata, genes=adata.var_names[:4]).shape == (70, 4)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        pytest.param({"batch": "batch1"}, {"batch": "batch1"}, id="batch"),
        pytest.param({"covariates": {"batch": "batch2"}}, {"batch": "batch2"}, id="batch-among-covariates"),
        pytest.param({"covariates": {"sex": "male"}}, {"sex": "male"}, id="level"),
        pytest.param({"covariates": {"year": 2031}}, {"year": 2031}, id="number"),
        pytest.param(
            {"batch": "batch0", "covariates": {"sex": "female", "year": 2019.5}},
            {"batch": "batch0", "sex": "female", "year": 2019.5},
            id="all-together",
        ),
    ],
)
def test_settings(options: dict[str, Any], settings: dict[str, Any], adata: AnnData) -> None:
    expected = by_numpy(adata, **settings)
    np.testing.assert_allclose(expression(adata, **options), expected, **TOLERANCE)
    assert abs(expected - by_numpy(adata)).max() > 1e-3


def test_mean_of_a_number_is_that_of_the_fit(adata: AnnData) -> None:
    expected = by_numpy(adata, year=adata.obs["year"].mean())
    for some in (adata, adata[adata.obs["year"] > 2021].copy()):
        got = expression(some, covariates={"year": "mean"})
        np.testing.assert_allclose(got, expected[adata.obs_names.isin(some.obs_names)], **TOLERANCE)


def test_mean_over_levels_is_the_mean_of_the_results(adata: AnnData) -> None:
    over_batches = np.mean([expression(adata, batch=f"batch{i}") for i in range(3)], axis=0)
    np.testing.assert_allclose(expression(adata, batch="mean"), over_batches, **TOLERANCE)
    over_both = np.mean(
        [by_numpy(adata, batch=f"batch{i}", sex=sex) for i in range(3) for sex in ("female", "male")], axis=0
    )
    np.testing.assert_allclose(expression(adata, batch="mean", covariates={"sex": "mean"}), over_both, **TOLERANCE)


def test_what_is_set_need_not_be_in_obs(adata: AnnData) -> None:
    expected = expression(adata, batch="mean", covariates={"year": 2021})
    del adata.obs["batch"], adata.obs["year"]
    pd.testing.assert_frame_equal(expression(adata, batch="mean", covariates={"year": 2021}), expected)


@pytest.mark.parametrize("which", ["normal", "composition"])
@pytest.mark.parametrize(
    ("factors", "values"),
    [
        pytest.param([1, 3], {1: 0.0}, id="keep-numbers"),
        pytest.param(["ldvae3", "ldvae1"], {1: 0.0}, id="keep-names"),
        pytest.param(2, {0: 0.0, 2: 0.0}, id="keep-one"),
        pytest.param("ldvae2", {0: 0.0, 2: 0.0}, id="keep-one-name"),
        pytest.param(np.array([2, 3]), {0: 0.0}, id="keep-array"),
        pytest.param({2: None}, {1: 0.0}, id="drop"),
        pytest.param({"ldvae1": None, 2: None}, {0: 0.0, 1: 0.0}, id="drop-two"),
        pytest.param({1: 0.7}, {0: 0.7}, id="set"),
        pytest.param({"ldvae3": 0.25, 1: None}, {2: 0.25, 0: 0.0}, id="set-and-drop"),
        pytest.param([1, 2, 3], {}, id="keep-all"),
    ],
)
def test_factors(which: str, factors: Any, values: Mapping[int, float], request: pytest.FixtureRequest) -> None:
    adata = request.getfixturevalue(which)
    latent = adata.obsm["X_ldvae"].astype(np.float64)
    for k, value in values.items():
        latent[:, k] = value
    if which == "composition":
        others = [k for k in range(3) if k not in values]
        latent[:, others] *= (1 - sum(values.values())) / latent[:, others].sum(1, keepdims=True)
        np.testing.assert_allclose(latent.sum(1), 1)
    np.testing.assert_allclose(expression(adata, factors=factors), by_numpy(adata, latent), **TOLERANCE)


def test_no_factor_is_the_prior_mean(adata: AnnData) -> None:
    np.testing.assert_allclose(expression(adata, factors=[]), by_numpy(adata, np.zeros((70, 3))), **TOLERANCE)


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.7, 0.2, 0.1), (0.0, 0.0, 1.0), (1, 0, None)])
def test_all_shares_of_a_composition_can_be_set(shares: tuple[float | None, ...], composition: AnnData) -> None:
    got = expression(composition, factors=dict(zip((1, 2, 3), shares, strict=True)))
    latent = np.tile([share or 0.0 for share in shares], (70, 1))
    np.testing.assert_allclose(got, by_numpy(composition, latent), **TOLERANCE)


@pytest.mark.parametrize(
    "factors",
    [
        pytest.param({1: -0.1}, id="negative"),
        pytest.param({1: 1.5}, id="above-one"),
        pytest.param({1: 0.6, 2: 0.6}, id="sum-above-one"),
        pytest.param({1: 0.1, 2: 0.1, 3: 0.1}, id="all-below-one"),
        pytest.param([], id="none-left"),
    ],
)
def test_what_is_no_share_is_refused(factors: Any, composition: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^factors: with latent_distribution='ln' factors are shares of one, but"):
        expression(composition, factors=factors)


@pytest.mark.parametrize("which", ["normal", "composition"])
def test_mean_over_draws(which: str, request: pytest.FixtureRequest) -> None:
    adata, rng, n = request.getfixturevalue(which), np.random.default_rng(9), 1500
    mean, sd = adata.obsm["X_ldvae"].astype(np.float64), np.sqrt(adata.obsm["X_ldvae_variance"].astype(np.float64))
    draws = []
    for _ in range(n):
        noise = sd * rng.standard_normal(mean.shape)
        draws.append(by_numpy(adata, softmax(np.log(mean) + noise, axis=1) if which == "composition" else mean + noise))
    expected, error = np.mean(draws, axis=0), np.std(draws, axis=0) * (2 / n) ** 0.5
    got = expression(adata, n_samples=n, rng=1).to_numpy()
    scores = (got - expected) / error
    assert abs(scores).max() < 6
    assert abs(scores.std() - 1) < 0.2
    # Not the same as the value at the mean.
    assert (abs(expression(adata) - expected) / error).to_numpy().max() > 10


def test_draws_are_reproducible(adata: AnnData) -> None:
    three = expression(adata, n_samples=3)
    pd.testing.assert_frame_equal(three, expression(adata, n_samples=3, rng=0))
    pd.testing.assert_frame_equal(three, expression(adata, n_samples=3, rng=np.random.default_rng(0)))
    assert (three != expression(adata, n_samples=3, rng=1)).to_numpy().any()
    unseeded = [expression(adata, n_samples=1, rng=None) for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).to_numpy().any()
    np.testing.assert_allclose(three.sum(axis=1), 1, rtol=1e-5)


def test_set_factors_have_no_posterior(adata: AnnData) -> None:
    nothing_left = expression(adata, factors={1: 1.0, 2: 0.0, 3: -1.0}, n_samples=4)
    np.testing.assert_allclose(nothing_left, by_numpy(adata, np.tile([1.0, 0.0, -1.0], (70, 1))), **TOLERANCE)


def test_library(adata: AnnData) -> None:
    proportions = by_numpy(adata)
    np.testing.assert_allclose(expression(adata, library=1e4), 1e4 * proportions, rtol=1e-5)
    own = adata.obs["ldvae_library"].to_numpy(dtype=np.float64)[:, None] * proportions
    np.testing.assert_allclose(expression(adata, library="own"), own, rtol=1e-5)


def test_threshold_leaves_small_values_out(adata: AnnData) -> None:
    dense = expression(adata, library=100).to_numpy()
    threshold = float(np.median(dense))
    got = expression(adata, library=100, threshold=threshold)
    assert sparse.isspmatrix_csr(got)
    assert got.has_canonical_format
    assert got.dtype == np.float32
    assert 0 < got.nnz < got.shape[0] * got.shape[1]
    np.testing.assert_allclose(got.toarray(), np.where(dense < threshold, 0, dense), **ROUNDING)
    some = expression(adata, library=100, threshold=threshold, genes=["gene9", "gene2"])
    assert some.has_canonical_format
    np.testing.assert_allclose(some.toarray(), np.where(dense < threshold, 0, dense)[:, [9, 2]], **ROUNDING)


@pytest.mark.parametrize("threshold", [None, 0.03])
def test_layer_has_nothing_elsewhere(threshold: float | None, masked: AnnData) -> None:
    adata = masked[:, ::-1].copy()
    values = expression(adata, threshold=threshold, genes=["gene4", "gene1", "gene0"])
    assert expression(adata, threshold=threshold, genes=["gene4", "gene1", "gene0"], key_added="denoised") is None
    layer = adata.layers["denoised"]
    assert sparse.issparse(layer) == (threshold is not None)
    if threshold is not None:
        values, layer = values.toarray(), layer.toarray()
        assert adata.layers["denoised"].has_canonical_format
    places = [adata.var_names.get_loc(gene) for gene in ("gene4", "gene1", "gene0")]
    np.testing.assert_allclose(layer[:, places], values, **ROUNDING)
    elsewhere = np.delete(layer, places, axis=1)
    # Full of NaN it would not be sparse.
    assert not elsewhere.any() if threshold is not None else np.isnan(elsewhere).all()
    assert np.any(values)


def test_layer_of_all_fitted_genes(masked: AnnData) -> None:
    adata = masked.copy()
    expression(adata, key_added="denoised")
    chosen = adata.var["chosen"].to_numpy()
    np.testing.assert_allclose(adata.layers["denoised"][:, chosen], by_numpy(adata), **TOLERANCE)
    assert np.isnan(adata.layers["denoised"][:, ~chosen]).all()
    assert adata.layers["denoised"].dtype == np.float32


@pytest.fixture(scope="module")
def layered(masked: AnnData) -> AnnData:
    """With a layer of 24 fitted genes and six that were not; shared: change a copy."""
    adata = masked.copy()
    expression(adata, library=100, key_added="denoised")
    adata.obsm["X_umap"] = adata.obsm["X_ldvae"][:, :2]
    adata.obs["batch"] = adata.obs["batch"].astype("category")
    return adata


def test_scanpys_embeddings_show_cells_of_genes_that_were_not_fitted_in_grey(layered: AnnData) -> None:
    panels = sc.pl.umap(layered.copy(), color=["gene1", "gene2"], layer="denoised", show=False)
    colors = [panel.collections[0].to_rgba(panel.collections[0].get_array()) for panel in panels]
    expected = layered[:, "gene1"].layers["denoised"].ravel()
    np.testing.assert_allclose(np.sort(panels[0].collections[0].get_array()), np.sort(expected))
    assert len(np.unique(colors[0], axis=0)) > 10
    assert (np.ptp(colors[1][:, :3], axis=1) == 0).all()


def test_scanpys_matrices_leave_places_of_genes_that_were_not_fitted_empty(layered: AnnData) -> None:
    genes = ["gene0", "gene1", "gene2"]
    means = sc.pl.matrixplot(
        layered.copy(), genes, "batch", layer="denoised", show=False, return_fig=True
    ).values_df.loc[["batch0", "batch1", "batch2"], genes]
    values = pd.DataFrame(layered[:, genes].layers["denoised"], columns=genes)
    expected = values.groupby(layered.obs["batch"].to_numpy()).mean()
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    assert means.isna().all().tolist() == [False, False, True]
    axes = sc.pl.heatmap(layered.copy(), genes, "batch", layer="denoised", show=False)
    (image,) = axes["heatmap_ax"].get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(np.sort(shown, axis=0), np.sort(values, axis=0))


@pytest.mark.parametrize("plot", ["dotplot", "stacked_violin", "tracksplot", "violin"])
@pytest.mark.parametrize("genes", [["gene1"], ["gene2"], ["gene1", "gene2"]], ids=["fitted", "not-fitted", "both"])
# scanpy divides by the largest value, and seaborn finds none.
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered in divide:RuntimeWarning")
def test_scanpys_other_plots_bear_genes_that_were_not_fitted(plot: str, genes: list[str], layered: AnnData) -> None:
    options = {"vmin": 0, "vmax": 10} if plot in {"dotplot", "stacked_violin"} else {}
    getattr(sc.pl, plot)(layered.copy(), genes, groupby="batch", layer="denoised", show=False, **options)
    texts = {text.get_text() for text in plt.gcf().findobj(plt.Text)}
    assert set(genes) <= texts
    # The same for fitted genes alone, of which there are no others then.
    sc.pl.dotplot(layered[:, layered.uns["ldvae"]["genes"]].copy(), ["gene1"], "batch", layer="denoised", show=False)


def test_scanpys_ranking_takes_loadings_and_errors_of_fitted_genes(layered: AnnData) -> None:
    sc.pl.ranking(layered, "varm", "ldvae_loadings", indices=[0, 1], n_points=5, show=False)
    fitted = layered[:, layered.uns["ldvae"]["genes"]]
    sc.pl.ranking(fitted, "varm", "ldvae_loadings_se", indices=[0, 1], n_points=5, show=False)
    largest = fitted.var_names[np.argmax(fitted.varm["ldvae_loadings_se"][:, 0])]
    assert largest in {text.get_text() for text in plt.gcf().findobj(plt.Text)}


def test_object_that_lost_genes_and_cells(adata: AnnData) -> None:
    whole = expression(adata)
    rest = adata[10:30, [5, 3, 8]].copy()
    pd.testing.assert_frame_equal(expression(rest), whole.iloc[10:30])
    for threshold in (None, 0.0):
        expression(rest, threshold=threshold, key_added="denoised")
        layer = rest.layers["denoised"]
        np.testing.assert_allclose(
            layer if threshold is None else layer.toarray(),
            whole.iloc[10:30][["gene5", "gene3", "gene8"]],
            **ROUNDING,
        )


def test_view(adata: AnnData) -> None:
    pd.testing.assert_frame_equal(expression(adata[5:9]), expression(adata).iloc[5:9])
    view = adata[5:9]
    expression(view, key_added="denoised")
    np.testing.assert_allclose(view.layers["denoised"], expression(adata).iloc[5:9], **ROUNDING)
    assert "denoised" not in adata.layers


def test_without_counts(adata: AnnData) -> None:
    expected = expression(adata)
    del adata.X
    pd.testing.assert_frame_equal(expression(adata), expected)
    expression(adata, key_added="denoised")
    np.testing.assert_array_equal(adata.layers["denoised"], expected)


def test_modality(adata: AnnData) -> None:
    mdata = mudata.MuData({"rna": adata})
    pd.testing.assert_frame_equal(expression(mdata, modality="rna"), expression(adata))
    expression(mdata, modality="rna", key_added="denoised")
    assert "denoised" in mdata["rna"].layers


@pytest.mark.parametrize("chunk", [1, 7, 69, 70, 71])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="own"),
        pytest.param({"batch": "mean", "library": "own"}, id="mean"),
        pytest.param({"factors": {2: 1.0}}, id="factors"),
        pytest.param({"threshold": 0.03}, id="sparse"),
    ],
)
def test_chunks_do_not_show(
    chunk: int, options: dict[str, Any], adata: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expression(adata, **options)
    monkeypatch.setattr("sc_ldvae.decode._normalized.CHUNK", chunk)
    got = expression(adata, **options)
    if "threshold" in options:
        assert got.has_canonical_format
        got, expected = pd.DataFrame(got.toarray()), pd.DataFrame(expected.toarray())
    pd.testing.assert_frame_equal(got, expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param({"batch": "b"}, "^'b' is no level of the covariate 'batch'. Levels: 'batch0', ", id="batch"),
        pytest.param(
            {"covariates": {"sex": "x"}},
            "^'x' is no level of the covariate 'sex'. Levels: 'female', 'male'",
            id="level",
        ),
        pytest.param(
            {"covariates": {"age": 3}},
            r"^'age' is no covariate of the fit\. Its covariates: 'batch', 'sex', ",
            id="covariate",
        ),
        pytest.param(
            {"covariates": {"year": "late"}}, "^The covariate 'year' is a number: it can't be 'late'", id="text"
        ),
        pytest.param({"covariates": {"year": 1e300}}, "^The covariate 'year' is 1e.300, but in the fit", id="far"),
        pytest.param({"covariates": {"year": np.nan}}, "^The covariate 'year' is a number: it can't be nan", id="nan"),
        pytest.param({"genes": ["gene1", "g"]}, "^genes holds 'g', which is not among the 30 genes", id="gene"),
        pytest.param({"genes": ["gene1"] * 2}, "^genes holds 'gene1' more than once", id="gene-twice"),
        pytest.param({"factors": [1, 9]}, "^factors holds 9, but factors are 1 to 3, or 'ldvae1'", id="factor"),
        pytest.param({"factors": {"foo1": None}}, "^factors holds 'foo1', but factors are 1 to 3", id="factor-name"),
        pytest.param({"factors": {2: np.nan}}, "^factors: a factor can't be set to nan", id="factor-nan"),
        pytest.param({"factors": {2: np.inf}}, "^factors: a factor can't be set to inf", id="factor-infinite"),
        pytest.param(
            {"library": 0}, "^library must be a number from 1e-30 to 1e.30 or 'own', but is 0", id="library-zero"
        ),
        pytest.param({"library": "mine"}, "^library must be a number .* or 'own', but is 'mine'", id="library"),
        pytest.param({"library": 1e300}, "^library must be a number .* or 'own', but is 1e.300", id="library-large"),
        pytest.param({"library": 1e-300}, "^library must be a number .* or 'own', but is 1e-300", id="library-small"),
        pytest.param({"threshold": 1e300}, "^threshold must be a number up to 1e.30, but is 1e.300", id="threshold"),
        pytest.param({"threshold": np.nan}, "^threshold must be a number up to 1e.30, but is nan", id="threshold-nan"),
        pytest.param({"library": np.nan}, "^library must be .* but is nan", id="library-nan"),
        pytest.param({"n_samples": 0}, "^n_samples must be at least 1, but is 0", id="n_samples"),
        pytest.param({"key_added": "a/b"}, "^key_added='a/b' can't name", id="key_added"),
        pytest.param({"key": "foo"}, r"^uns\['foo'\] holds no fit", id="key"),
    ],
)
def test_refused_and_nothing_changed(
    options: dict[str, Any], sentence: str, adata: AnnData, unchanged: Callable[[AnnData], Any]
) -> None:
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        expression(adata, **{"key_added": "denoised"} | options)


def test_batch_of_a_fit_without_batches_is_refused(raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(raw, copy=True)
    with pytest.raises(ValueError, match=r"^batch='batch1' was given, but the fit has no batch"):
        expression(adata, batch="batch1")
    np.testing.assert_allclose(expression(adata).sum(axis=1), 1, rtol=1e-5)


def test_unseen_level_is_refused(adata: AnnData) -> None:
    adata.obs["sex"] = ["other", *adata.obs["sex"][1:]]
    with pytest.raises(ValueError, match=r"^obs\['sex'\] has the level 'other', which the fit has not seen"):
        expression(adata)


def test_joined_cells_that_were_never_mapped_are_refused(raw: AnnData, adata: AnnData) -> None:
    more = raw[:5].copy()
    more.obs_names = [f"more{i}" for i in range(5)]
    both = ad.concat([adata, more], join="outer", merge="first", uns_merge="first")
    with pytest.raises(ValueError, match=r"^5 of 75 cells have no latent \(for example 'more0'\).*sc_ldvae.tl.project"):
        expression(both)


def test_library_that_is_gone_is_refused(adata: AnnData) -> None:
    del adata.obs["ldvae_library"]
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds a fit, but its obs\['ldvae_library'\] is gone"):
        expression(adata)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param(
            {}, r"^A dense array of 70 cells x 30 genes needs 8,400 bytes \(0\.0 GB\), but 0\.0 GB", id="dense"
        ),
        pytest.param({"genes": ["gene1", "gene2"]}, "^A dense array of 70 cells x 2 genes needs 560 bytes", id="some"),
        pytest.param({"threshold": 0.0}, "^A sparse matrix of 70 cells x 30 genes needs 33,600 bytes", id="sparse"),
        pytest.param({"key_added": "denoised"}, "needs 8,400 bytes .*threshold", id="layer"),
    ],
)
def test_too_large_a_result_is_refused(
    options: dict[str, Any],
    sentence: str,
    adata: AnnData,
    unchanged: Callable[[AnnData], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500))
    with unchanged(adata), pytest.raises(MemoryError, match=sentence):
        expression(adata, **options)


def test_draws_that_no_memory_holds_are_refused(fitted: AnnData) -> None:
    with pytest.raises(MemoryError, match=r"^The latent of 200 cells in 2000000000 draws needs .* \(n_samples\)"):
        tl.normalized_expression(fitted, n_samples=2 * 10**9, progress=False)


def test_factors_are_set_to_numbers(fitted: AnnData) -> None:
    with pytest.raises(TypeError, match=r"^factors: a factor can't be set to 'high'\."):
        tl.normalized_expression(fitted, factors={1: "high"}, progress=False)
