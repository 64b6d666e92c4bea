from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest

from sc_ldvae import assess, get, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

NAMES = ["ldvae1", "ldvae2", "ldvae3"]
GETTERS = {
    "loadings": get.loadings,
    "rotated": partial(get.loadings, rotation="varimax", per="sd"),
    "loadings_se": get.loadings_se,
    "top_genes": get.top_genes,
    "factors": get.factors,
    "latent": partial(get.latent, obs_columns=["batch", "covariate1"]),
    "history": get.history,
    "covariate_effects": get.covariate_effects,
}
each_getter = pytest.mark.parametrize("getter", GETTERS.values(), ids=GETTERS)


@pytest.fixture(scope="module")
def masked(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    return fit_quickly(simulated, mask_var=np.arange(60) % 4 > 0, key_added="foo", copy=True)


def test_loadings_are_the_stored_ones(fitted: AnnData) -> None:
    frame = get.loadings(fitted)
    assert frame.index.equals(fitted.var_names)
    assert frame.columns.tolist() == NAMES
    np.testing.assert_array_equal(frame.to_numpy(), fitted.varm["ldvae_loadings"], strict=True)


def test_loadings_of_fitted_genes_only(masked: AnnData) -> None:
    frame = get.loadings(masked, key="foo")
    chosen = np.arange(60) % 4 > 0
    assert frame.index.tolist() == masked.var_names[chosen].tolist()
    assert frame.columns.tolist() == ["foo1", "foo2", "foo3"]
    np.testing.assert_array_equal(frame.to_numpy(), masked.varm["foo"][chosen], strict=True)


@pytest.mark.parametrize(
    ("factors", "columns"),
    [
        pytest.param([1], [0], id="number"),
        pytest.param(["ldvae3"], [2], id="name"),
        pytest.param([3, "ldvae1"], [2, 0], id="both-in-the-order-asked-for"),
        pytest.param((2, 3), [1, 2], id="tuple"),
        pytest.param(np.array([2, 3]), [1, 2], id="array"),
        pytest.param(range(1, 4), [0, 1, 2], id="range"),
        pytest.param(None, [0, 1, 2], id="all"),
    ],
)
def test_factors_by_number_and_name(factors: list[int | str] | None, columns: list[int], fitted: AnnData) -> None:
    frame = get.loadings(fitted, factors)
    assert frame.columns.tolist() == [NAMES[k] for k in columns]
    np.testing.assert_array_equal(frame.to_numpy(), fitted.varm["ldvae_loadings"][:, columns])
    top = get.top_genes(fitted, 2, factors=factors)
    assert top.index.get_level_values("factor").unique().tolist() == [NAMES[k] for k in columns]


@pytest.mark.parametrize("factor", [0, 4, -1, "foo1", "ldvae4"], ids=repr)
def test_unknown_factors_are_refused(factor: int | str, fitted: AnnData) -> None:
    sentence = f"^factors holds {factor!r}, but factors are 1 to 3, or 'ldvae1' to 'ldvae3'"
    with pytest.raises(ValueError, match=sentence):
        get.loadings(fitted, [1, factor])
    with pytest.raises(ValueError, match=sentence):
        get.top_genes(fitted, factors=[factor])


def test_half_a_factor_is_refused(fitted: AnnData) -> None:
    sentence = r"^factors must be a list of whole numbers and text or None, but is \[1, 1\.5\]\."
    for getter in (get.loadings, get.top_genes):
        with pytest.raises(TypeError, match=sentence):
            getter(fitted, factors=[1, 1.5])


@pytest.mark.parametrize("n_genes", [1, 4, 30, 1000])
def test_top_genes_are_the_extremes(n_genes: int, fitted: AnnData) -> None:
    table = get.top_genes(fitted, n_genes, by="loading")
    assert table.index.names == ["factor", "gene"]
    table = table[["direction", "rank", "loading"]]
    rows = []
    for k, name in enumerate(NAMES):
        pairs = [
            (float(value), gene)
            for gene, value in zip(fitted.var_names, fitted.varm["ldvae_loadings"][:, k], strict=True)
        ]
        highest = sorted((pair for pair in pairs if pair[0] > 0), reverse=True)[:n_genes]
        lowest = sorted(pair for pair in pairs if pair[0] < 0)[:n_genes]
        for direction, extremes in (("positive", highest), ("negative", lowest)):
            rows += [(name, gene, direction, rank, value) for rank, (value, gene) in enumerate(extremes, start=1)]
    assert list(table.reset_index().itertuples(index=False, name=None)) == rows


@pytest.mark.parametrize("n_genes", [4, 1000])
@pytest.mark.parametrize("options", [{}, {"rotation": "varimax", "per": "sd"}], ids=["plain", "rotated"])
def test_top_genes_are_those_whose_intervals_end_farthest_from_zero(
    n_genes: int, options: dict[str, Any], fitted: AnnData
) -> None:
    loadings, errors = get.loadings(fitted, **options), get.loadings_se(fitted, **options)
    table = get.top_genes(fitted, n_genes, **options)
    assert (table["rank"].to_numpy() <= n_genes).all()
    by_loading = get.top_genes(fitted, n_genes, by="loading", **options)
    assert table.index.tolist() != by_loading.index.tolist()
    for name in NAMES:
        for direction, sign in (("positive", 1), ("negative", -1)):
            least = (sign * loadings[name] - 1.96 * errors[name])[sign * loadings[name] > 0]
            rows = table.loc[name][lambda rows, which=direction: rows["direction"] == which]
            assert rows.index.tolist() == least.sort_values(ascending=False).index[:n_genes].tolist()
            assert rows["rank"].tolist() == list(range(1, len(rows) + 1))


def test_a_large_loading_with_a_large_error_comes_last(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"]["decoder"]["loadings"][7, 0] = 100
    adata.uns["ldvae"]["loadings_covariance"][7, 0] = 100.0**2
    reseal(adata)
    ranks = get.top_genes(adata, 1000, factors=[1]).loc["ldvae1"].query("direction == 'positive'")["rank"]
    assert ranks["gene7"] == ranks.max()
    assert get.top_genes(adata, 1, factors=[1], by="loading").index[0] == ("ldvae1", "gene7")
    del adata.uns["ldvae"]["loadings_covariance"]
    reseal(adata)
    assert get.top_genes(adata, 1, factors=[1]).index[0] == ("ldvae1", "gene7")


def test_no_factor_has_no_top_genes(fitted: AnnData) -> None:
    none, some = (get.top_genes(fitted, factors=factors) for factors in ([], [1]))
    assert none.empty
    assert (none.columns.tolist(), none.index.names) == (some.columns.tolist(), some.index.names)


def test_top_genes_are_ranked_by_one_of_two(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^by='se' is unknown\. Choose 'bound' or 'loading'\."):
        get.top_genes(fitted, by="se")


@pytest.mark.parametrize("factors", [[2, 2], ["ldvae2", 2]], ids=["number", "name"])
def test_factors_are_named_once(factors: list[int | str], fitted: AnnData) -> None:
    for getter in (get.loadings, get.loadings_se, get.top_genes):
        with pytest.raises(ValueError, match=r"^factors holds 'ldvae2' more than once\. Name each once\."):
            getter(fitted, factors=factors)


def test_a_gene_stands_in_the_direction_of_its_sign(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    loadings = adata.uns["ldvae"]["decoder"]["loadings"]
    loadings[:, 0] = np.abs(loadings[:, 0])
    loadings[:5, 0] = 0
    reseal(adata)
    table = get.top_genes(adata, 1000, factors=[1])
    assert table["direction"].unique().tolist() == ["positive"]
    assert len(table) == 55


@pytest.mark.parametrize("n_genes", [0, -3])
def test_top_genes_needs_a_number_of_genes(n_genes: int, fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^n_genes must be at least 1, but is {n_genes}"):
        get.top_genes(fitted, n_genes)


def information_of(adata: AnnData) -> np.ndarray:
    """Of the negative binomial with mean m and inverse dispersion theta: m / (1 + m / theta)."""
    decoder = adata.uns["ldvae"]["decoder"]
    mean = adata.obs["ldvae_library"].mean() * np.exp(decoder["intercept"].astype(float))
    return mean / (1 + mean / np.exp(decoder["log_theta"][0].astype(float)))


def rotation_of(adata: AnnData, method: str) -> np.ndarray:
    return assess.ROTATIONS[method](adata.varm["ldvae_loadings"], information_of(adata))


@pytest.mark.parametrize("method", ["varimax", "promax"])
@pytest.mark.parametrize("per", ["unit", "sd"])
@pytest.mark.parametrize("log2", [False, True])
def test_rotated_and_scaled(method: str, per: str, log2: bool, fitted: AnnData) -> None:
    matrix = rotation_of(fitted, method)
    expected = fitted.varm["ldvae_loadings"] @ np.linalg.inv(matrix).T
    assert (np.diff(information_of(fitted) @ expected**2) < 0).all()
    covariance = record.read(fitted).loadings_covariance
    inverse = np.linalg.inv(matrix)
    errors = np.array([np.sqrt(np.diag(inverse @ one @ inverse.T)) for one in covariance])
    if per == "sd":
        scale = (fitted.obsm["X_ldvae"] @ matrix).std(axis=0)
        expected, errors = expected * scale, errors * scale
    if log2:
        expected, errors = expected / np.log(2), errors / np.log(2)
    options: dict[str, Any] = {"rotation": method, "per": per, "log2": log2}
    for getter, values in ((get.loadings, expected), (get.loadings_se, errors)):
        frame = getter(fitted, **options)
        assert frame.columns.tolist() == NAMES
        np.testing.assert_allclose(frame, values, rtol=1e-4, atol=1e-5)
        pd.testing.assert_frame_equal(getter(fitted, [3, 1], **options), frame[["ldvae3", "ldvae1"]])
    table = get.top_genes(fitted, 1, factors=[2], by="loading", **options)
    np.testing.assert_allclose(table["loading"], [expected[:, 1].max(), expected[:, 1].min()], rtol=1e-4)


def test_scaled_without_rotation(fitted: AnnData) -> None:
    frame = get.loadings(fitted, per="sd", log2=True)
    expected = fitted.varm["ldvae_loadings"] * fitted.obsm["X_ldvae"].std(axis=0) / np.log(2)
    np.testing.assert_allclose(frame, expected, rtol=1e-5)
    assert (frame.dtypes == np.float32).all()


def test_rotated_loadings_follow_the_genes(fitted: AnnData) -> None:
    genes = [f"gene{i}" for i in (50, 3, 21)]
    expected = get.loadings(fitted, rotation="varimax").loc[genes]
    pd.testing.assert_frame_equal(get.loadings(fitted[:, genes].copy(), rotation="varimax"), expected)
    assert get.loadings_se(fitted[:, genes].copy()).index.tolist() == genes


@pytest.mark.parametrize("getter", [get.loadings, get.loadings_se, get.top_genes])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param(
            {"rotation": "quartimax"}, "rotation='quartimax' is unknown. Choose 'varimax' or 'promax'", id="r"
        ),
        pytest.param({"per": "cell"}, "per='cell' is unknown. Choose 'unit' or 'sd'", id="per"),
    ],
)
def test_unknown_views_are_refused(
    getter: Callable[..., pd.DataFrame], options: dict[str, str], sentence: str, fitted: AnnData
) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        getter(fitted, **options)


def test_shares_of_one_are_not_rotated(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"]["params"]["latent_distribution"] = "ln"
    reseal(adata)
    with pytest.raises(
        ValueError, match=r"^rotation='promax' was given, but with latent_distribution='ln' factors are"
    ):
        get.loadings(adata, rotation="promax")
    assert get.loadings(adata, per="sd").shape == (60, 3)


def test_top_genes_say_how_sure_they_are(fitted: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def signs(estimates: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append((estimates, errors))
        return errors / 10, errors / 100

    monkeypatch.setattr(assess, "signs", signs, raising=False)
    table = get.top_genes(fitted, 4, factors=[1, 3])
    errors = get.loadings_se(fitted)
    assert table.columns.tolist() == ["direction", "rank", "loading", "se", "lfsr", "qvalue"]
    assert table["se"].tolist() == [errors.loc[gene, factor] for factor, gene in table.index]
    np.testing.assert_allclose(table["lfsr"], table["se"] / 10, rtol=1e-6)
    np.testing.assert_allclose(table["qvalue"], table["se"] / 100, rtol=1e-6)
    for (values, spread), k in zip(seen, (0, 2), strict=True):
        np.testing.assert_array_equal(values, fitted.varm["ldvae_loadings"][:, k])
        np.testing.assert_array_equal(spread, errors.iloc[:, k])


def test_fits_without_errors(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    del adata.uns["ldvae"]["loadings_covariance"]
    reseal(adata)
    assert get.top_genes(adata).columns.tolist() == ["direction", "rank", "loading"]
    with pytest.raises(
        ValueError, match=r"^uns\['ldvae'\] has no errors of its loadings, as it was written by an older"
    ):
        get.loadings_se(adata)


def test_unused_factors_are_told(fitted: AnnData) -> None:
    adata = fitted.copy()
    assert not get.factors(adata)["unused"].any()
    latent = adata.obsm["X_ldvae"]
    latent[:, 1] *= 0.0995 / latent[:, 1].std()
    latent[:, 2] *= 0.1005 / latent[:, 2].std()
    assert get.factors(adata)["unused"].tolist() == [False, True, False]


def test_unused_shares_have_the_variance_of_the_prior(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"]["params"]["latent_distribution"] = "ln"
    reseal(adata)
    adata.obsm["X_ldvae"] *= 0.01
    adata.obsm["X_ldvae_variance"][:] = [0.5, 0.995, 0.985]
    assert get.factors(adata)["unused"].tolist() == [False, True, False]


def test_factors_describe_the_latent(fitted: AnnData) -> None:
    frame = get.factors(fitted)
    assert frame.index.tolist() == NAMES
    assert frame.index.name == "factor"
    assert frame.columns.tolist() == ["explained_deviance", "mean", "sd", "posterior_sd", "vanished", "unused"]
    latent, variance = (fitted.obsm[key].astype(float) for key in ("X_ldvae", "X_ldvae_variance"))
    np.testing.assert_array_equal(frame["explained_deviance"], fitted.uns["ldvae"]["explained_deviance"])
    np.testing.assert_allclose(frame["mean"], latent.mean(0), rtol=1e-9)
    np.testing.assert_allclose(frame["sd"], latent.std(0), rtol=1e-9)
    np.testing.assert_allclose(frame["posterior_sd"], (variance.sum(0) / 200) ** 0.5, rtol=1e-9)
    assert frame["explained_deviance"].is_monotonic_decreasing
    assert frame.attrs == {"total_explained_deviance": fitted.uns["ldvae"]["total_explained_deviance"]}


def test_history_is_the_stored_one(fitted: AnnData) -> None:
    frame, record = get.history(fitted), fitted.uns["ldvae"]
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame.columns.tolist() == ["elbo", "elbo_held_out", "kl_weight", "lr"]
    for name in frame:
        np.testing.assert_array_equal(frame[name], record["history"][name])
    assert frame.attrs == {"stop_reason": "max_epochs=3 reached", "best_epoch": frame["elbo_held_out"].idxmax()}


def test_history_without_held_out_cells(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    frame = get.history(fit_quickly(simulated, train_size=1.0, copy=True))
    assert frame.columns.tolist() == ["elbo", "kl_weight", "lr"]
    assert frame.attrs["best_epoch"] == 2


def test_covariate_effects_are_the_stored_ones(fitted: AnnData) -> None:
    frame = get.covariate_effects(fitted)
    assert frame.index.tolist() == fitted.var_names.tolist()
    assert frame.columns.names == ["covariate", "level"]
    assert frame.columns.tolist() == [("batch", "batch0"), ("batch", "batch1"), ("covariate1", "")]
    np.testing.assert_array_equal(frame.to_numpy(), fitted.uns["ldvae"]["decoder"]["covariate_effects"])


def test_no_covariates_no_columns(masked: AnnData) -> None:
    frame = get.covariate_effects(masked, key="foo")
    assert frame.shape == (45, 0)
    assert frame.index.tolist() == masked.uns["foo"]["genes"].tolist()
    assert frame.columns.names == ["covariate", "level"]


def test_after_subsetting_genes(masked: AnnData) -> None:
    genes = [f"gene{i}" for i in (50, 3, 4, 7, 21)]
    expected = get.loadings(masked, key="foo").reindex(["gene50", "gene3", "gene7", "gene21"])
    for subset in (masked[:, genes], masked[:, genes].copy()):
        pd.testing.assert_frame_equal(get.loadings(subset, key="foo"), expected)
        assert set(get.top_genes(subset, key="foo").index.get_level_values("gene")) <= set(expected.index)


def test_after_subsetting_cells(fitted: AnnData) -> None:
    cells = np.arange(200) % 3 == 0
    for subset in (fitted[cells], fitted[cells].copy()):
        frame = get.factors(subset)
        np.testing.assert_allclose(frame["mean"], fitted.obsm["X_ldvae"][cells].mean(0, dtype=float), rtol=1e-9)
        assert frame["explained_deviance"].tolist() == get.factors(fitted)["explained_deviance"].tolist()
        pd.testing.assert_frame_equal(get.loadings(subset), get.loadings(fitted))


@each_getter
def test_without_x(getter: Callable[..., pd.DataFrame], fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.X = None
    pd.testing.assert_frame_equal(getter(adata), getter(fitted))


@each_getter
def test_of_a_modality(getter: Callable[..., pd.DataFrame], fitted: AnnData) -> None:
    mdata = mudata.MuData({"rna": fitted.copy()})
    pd.testing.assert_frame_equal(getter(mdata, modality="rna"), getter(fitted))
    with pytest.raises(ValueError, match=r"^data is a MuData, and this is asked of one"):
        getter(mdata)


@each_getter
def test_frames_are_the_callers_own(getter: Callable[..., pd.DataFrame], fitted: AnnData, unchanged: Callable) -> None:
    adata = fitted.copy()
    with unchanged(adata):
        frame = getter(adata)
        for column in frame.select_dtypes("number"):
            frame.loc[:, column] = 7


@each_getter
@pytest.mark.parametrize("uns", [{}, {"ldvae": {"a": 1}}, {"ldvae": "text"}], ids=["none", "other-dict", "text"])
def test_no_fit_is_refused(getter: Callable[..., pd.DataFrame], uns: dict[str, object], simulated: AnnData) -> None:
    adata = simulated.copy()
    adata.uns.update(uns)
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit\. Fit one with sc_ldvae\.tl\.ldvae"):
        getter(adata)


@each_getter
def test_unknown_key_names_the_fits_there_are(getter: Callable[..., pd.DataFrame], masked: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit\..*Fits here: .*'foo'"):
        getter(masked)


@each_getter
def test_newer_format_is_refused(getter: Callable[..., pd.DataFrame], fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"]["schema_version"] = 99
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] was written in format 99, .* Update sc-ldvae"):
        getter(adata)
