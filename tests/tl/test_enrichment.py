"""Enrichment of loadings: against closed forms and decoupler's own calls, and what is refused."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, get_args

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sc_ldvae import get, tl
from sc_ldvae.assess import Enrichment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("decoupler")

FACTORS = ["ldvae1", "ldvae2", "ldvae3"]
SOURCES = ["high in 1", "low in 2", "mixed"]


@pytest.fixture
def adata(fitted: ad.AnnData) -> ad.AnnData:
    return fitted.copy()


@pytest.fixture
def net(fitted: ad.AnnData) -> pd.DataFrame:
    """Two sources made of a factor's tail, one with weights of both signs, and one that is too small."""
    loadings = get.loadings(fitted)
    high = loadings["ldvae1"].nlargest(8).index
    low = loadings["ldvae2"].nsmallest(6).index
    mixed = fitted.var_names[5:17]
    rows = [("high in 1", gene, 1.0) for gene in [*high, "not fitted"]]
    rows += [("low in 2", gene, 1.0) for gene in low]
    rows += [("mixed", gene, weight) for gene, weight in zip(mixed, np.linspace(-2, 3, 12), strict=True)]
    rows += [("small", gene, 1.0) for gene in fitted.var_names[:4]]
    return pd.DataFrame(rows, columns=["source", "target", "weight"]).sample(frac=1, random_state=0)


@pytest.fixture
def with_errors(monkeypatch: pytest.MonkeyPatch, fitted: ad.AnnData) -> pd.DataFrame:
    """Standard errors, genes x factors, that a fit is taken to have."""
    shape = (fitted.n_vars, len(FACTORS))
    errors = pd.DataFrame(np.random.default_rng(0).gamma(2, 0.1, shape), fitted.var_names, FACTORS)

    def stub(data: ad.AnnData, factors: list[int | str] | None = None, **_: Any) -> pd.DataFrame:
        return errors[get.loadings(data, factors).columns]

    monkeypatch.setattr(get, "loadings_se", stub)
    return errors


@pytest.fixture
def without_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        msg = "uns['ldvae'] has no errors."
        raise ValueError(msg)

    monkeypatch.setattr(get, "loadings_se", refuse)


def stored(adata: ad.AnnData, column: str, name: str = "ldvae_enrichment") -> pd.DataFrame:
    """Factors x sources."""
    return pd.DataFrame(adata.uns[name]).pivot_table(column, "factor", "source")


def dense(net: pd.DataFrame, genes: pd.Index) -> pd.DataFrame:
    weights = pd.DataFrame(0.0, genes, SOURCES)
    for source, target, weight in net.itertuples(index=False):
        if source in SOURCES and target in genes:
            weights.loc[target, source] = weight
    return weights


@pytest.mark.usefixtures("without_errors")
def test_ulm_is_the_regression_on_one_source(adata: ad.AnnData, net: pd.DataFrame) -> None:
    tl.enrichment(adata, net)
    loadings = get.loadings(adata)
    for source, weights in dense(net, loadings.index).items():
        for factor in FACTORS:
            fit = stats.linregress(weights, loadings[factor].astype(float))
            assert stored(adata, "score").loc[factor, source] == pytest.approx(fit.slope / fit.stderr, rel=1e-5)
            assert stored(adata, "pvalue").loc[factor, source] == pytest.approx(fit.pvalue, rel=1e-4)


@pytest.mark.usefixtures("without_errors")
def test_mlm_is_the_regression_on_all_sources(adata: ad.AnnData, net: pd.DataFrame) -> None:
    tl.enrichment(adata, net, method="mlm")
    loadings = get.loadings(adata).astype(float)
    design = np.column_stack([np.ones(len(loadings)), dense(net, loadings.index)])
    inverse = np.linalg.inv(design.T @ design)
    for factor in FACTORS:
        slopes = inverse @ design.T @ loadings[factor]
        variance = ((loadings[factor] - design @ slopes) ** 2).sum() / (len(design) - design.shape[1])
        t = (slopes / np.sqrt(variance * np.diag(inverse)))[1:]
        np.testing.assert_allclose(stored(adata, "score").loc[factor, SOURCES], t, rtol=1e-6)
        expected = 2 * stats.t.sf(np.abs(t), len(design) - design.shape[1])
        np.testing.assert_allclose(stored(adata, "pvalue").loc[factor, SOURCES], expected, rtol=1e-6)


@pytest.mark.usefixtures("without_errors")
@pytest.mark.parametrize("method", ["ulm", "zscore"])
def test_scores_are_those_of_decouplers_own_call(adata: ad.AnnData, net: pd.DataFrame, method: str) -> None:
    import decoupler

    tl.enrichment(adata, net, method=method)
    expected, adjusted = getattr(decoupler.mt, method)(get.loadings(adata).T, net)
    got = stored(adata, "score")
    np.testing.assert_allclose(got, expected.loc[FACTORS, got.columns], rtol=1e-6)
    # It adjusts within each factor.
    within = stats.false_discovery_control(stored(adata, "pvalue"), axis=1)
    np.testing.assert_allclose(within, adjusted.loc[FACTORS, got.columns], rtol=1e-6)


@pytest.mark.parametrize("method", get_args(Enrichment))
def test_sign_says_where_the_targets_are(adata: ad.AnnData, net: pd.DataFrame, method: str) -> None:
    tl.enrichment(adata, net, method=method)
    assert stored(adata, "score").loc["ldvae1", "high in 1"] > 2
    assert stored(adata, "score").loc["ldvae2", "low in 2"] < -2


@pytest.mark.usefixtures("without_errors")
def test_q_values_are_over_all_factors_and_sources(adata: ad.AnnData, net: pd.DataFrame) -> None:
    tl.enrichment(adata, net)
    p = stored(adata, "pvalue").to_numpy().ravel()
    ranked = np.sort(p) * len(p) / np.arange(1, len(p) + 1)
    expected = np.minimum.accumulate(ranked[::-1])[::-1][np.argsort(np.argsort(p))].clip(max=1)
    np.testing.assert_allclose(stored(adata, "qvalue").to_numpy().ravel(), expected, rtol=1e-12)
    assert (stored(adata, "n_targets") == [8, 6, 12]).all(axis=None)


def test_errors_turn_loadings_into_signed_roots_of_z(
    adata: ad.AnnData, net: pd.DataFrame, with_errors: pd.DataFrame
) -> None:
    tl.enrichment(adata, net, factors=[3, "ldvae1"])
    z = get.loadings(adata) / with_errors
    root = np.sign(z) * np.sqrt(np.abs(z))
    got = stored(adata, "score")
    assert sorted(got.index) == ["ldvae1", "ldvae3"]
    for source, weights in dense(net, z.index).items():
        for factor in got.index:
            fit = stats.linregress(weights, root[factor])
            assert got.loc[factor, source] == pytest.approx(fit.slope / fit.stderr, rel=1e-5)


def test_poorly_measured_genes_weigh_little(adata: ad.AnnData, net: pd.DataFrame, with_errors: pd.DataFrame) -> None:
    with_errors[:] = 0.1
    tl.enrichment(adata, net)
    before = stored(adata, "score").loc["ldvae1", "high in 1"]
    with_errors.loc[net["target"][(net["source"] == "high in 1") & (net["target"] != "not fitted")]] = 100.0
    tl.enrichment(adata, net)
    assert abs(stored(adata, "score").loc["ldvae1", "high in 1"]) < before / 3


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda net: net.assign(weight=2.0), id="unit-of-weight"),
        pytest.param(lambda net: pd.concat([net, net]), id="repeated-rows"),
        pytest.param(lambda net: net.assign(weight=1, resource="b"), id="further-column"),
        pytest.param(lambda net: net.astype("category"), id="categories"),
    ],
)
def test_weight_is_optional_and_nets_may_repeat_themselves(
    adata: ad.AnnData, net: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    plain = net[["source", "target"]]
    tl.enrichment(adata, plain)
    tl.enrichment(adata, change(plain), key_added="other")
    np.testing.assert_allclose(stored(adata, "score", "other"), stored(adata, "score"), rtol=1e-9)


def test_frame_has_the_largest_absolute_score_first(adata: ad.AnnData, net: pd.DataFrame) -> None:
    tl.enrichment(adata, net)
    frame = get.enrichment(adata)
    assert frame.columns.tolist() == ["score", "pvalue", "qvalue", "n_targets"]
    assert frame.index.names == ["factor", "source"]
    assert frame.index.get_level_values("factor").tolist() == [factor for factor in FACTORS for _ in SOURCES]
    for factor in FACTORS:
        assert frame.loc[factor, "score"].abs().is_monotonic_decreasing
        assert frame.loc[factor, "score"].to_dict() == stored(adata, "score").loc[factor].to_dict()
    pd.testing.assert_frame_equal(get.enrichment(adata, [2]), frame.loc[["ldvae2"]])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_result_survives_a_file(adata: ad.AnnData, net: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    tl.enrichment(adata, net)
    path = tmp_path / f"enriched.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(get.enrichment(again), get.enrichment(adata), check_exact=True)


def test_object_and_net_stay_as_they_are(
    adata: ad.AnnData, net: pd.DataFrame, unchanged: Callable[..., Any], assert_same: Callable[..., None]
) -> None:
    before = net.copy()
    with unchanged(adata):
        copied = tl.enrichment(adata, net, copy=True)
    pd.testing.assert_frame_equal(net, before)
    assert tl.enrichment(adata, net) is None
    assert_same(copied, adata)
    del adata.uns["ldvae_enrichment"]
    del adata.X
    tl.enrichment(adata, net)
    assert_same(adata.uns["ldvae_enrichment"], copied.uns["ldvae_enrichment"])


def test_modality_of_a_mudata(adata: ad.AnnData, net: pd.DataFrame) -> None:
    data = mudata.MuData({"rna": adata.copy()})
    tl.enrichment(data, net, modality="rna", key_added="sets")
    tl.enrichment(adata, net)
    pd.testing.assert_frame_equal(get.enrichment(data, modality="rna", key_added="sets"), get.enrichment(adata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda net: net.drop(columns="target"), "^net has no column 'target'. Columns: 'so", id="column"),
        pytest.param(lambda net: net.assign(target=None), r"^net names no source or target in 31 of 31", id="no-name"),
        pytest.param(lambda net: net.assign(weight="much"), "^net has weights that are not finite.*'much'", id="text"),
        pytest.param(lambda net: net.assign(weight=np.inf), "^net has weights that are not finite.*inf", id="infinite"),
        pytest.param(
            lambda net: pd.concat([net, net.assign(weight=5.0)]),
            "^net gives different weights to the target",
            id="twice",
        ),
        pytest.param(
            lambda net: net.assign(target="ENSG" + net["target"]),
            r"^net has no source with 5 or more targets among the 60 fitted genes: 0 of its 31 targets are fitted "
            r"genes \(not 'ENSG.*'; a fitted gene is 'gene0'\)",
            id="names",
        ),
        pytest.param(
            lambda net: net[net["source"] == "small"], r"4 of its 4 targets are fitted genes\. Name", id="few"
        ),
        pytest.param(lambda net: net.iloc[:0], "0 of its 0 targets are fitted genes. Name", id="empty"),
        pytest.param(lambda net: net.assign(weight=0), "^net gives all fitted genes the same weight", id="zero"),
    ],
)
def test_bad_nets_are_refused(
    adata: ad.AnnData,
    net: pd.DataFrame,
    unchanged: Callable[..., Any],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    with unchanged(adata), pytest.raises(ValueError, match=message):
        tl.enrichment(adata, change(net))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"net": {"set": ["gene0"]}}, TypeError, "^net is a dict, but must be a DataFrame", id="net"),
        pytest.param({"method": "gsea"}, ValueError, "^method='gsea' is unknown. Choose one of 'ulm'", id="method"),
        pytest.param({"tmin": 0}, ValueError, "^tmin must be at least 1", id="tmin"),
        pytest.param({"tmin": 20}, ValueError, "^net has no source with 20 or more", id="large-tmin"),
        pytest.param({"factors": []}, ValueError, "^factors is empty", id="no-factor"),
        pytest.param({"factors": [4]}, ValueError, "^factors holds 4, but factors are 1 to 3", id="factor"),
        pytest.param({"key": "foo"}, ValueError, r"^uns\['foo'\] holds no fit", id="fit"),
        pytest.param({"key_added": "ldvae"}, ValueError, "^key_added='ldvae' would replace the fit", id="key_added"),
    ],
)
def test_bad_arguments_are_refused(
    adata: ad.AnnData,
    net: pd.DataFrame,
    unchanged: Callable[..., Any],
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with unchanged(adata), pytest.raises(error, match=message):
        tl.enrichment(adata, **{"net": net} | arguments)


def test_sources_that_add_up_are_refused_by_mlm_alone(adata: ad.AnnData, net: pd.DataFrame) -> None:
    double = pd.concat([net, net[net["source"] == "mixed"].assign(source="again")])
    tl.enrichment(adata, double)
    assert "again" in stored(adata, "score")
    with pytest.raises(ValueError, match=r"^method='mlm' can't tell the 4 sources of net apart"):
        tl.enrichment(adata, double, method="mlm")


def test_frame_of_what_was_not_computed(adata: ad.AnnData, net: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"^uns\['ldvae_enrichment'\] holds no result of sc_ldvae.tl.enrichment"):
        get.enrichment(adata)
    tl.enrichment(adata, net, factors=[1])
    assert get.enrichment(adata).index.get_level_values("factor").unique().tolist() == ["ldvae1"]
    with pytest.raises(ValueError, match=r"^factors holds 'ldvae2', which is not in uns\['ldvae_enrichment'\]"):
        get.enrichment(adata, [2])


def test_without_decoupler_it_says_what_to_install(
    adata: ad.AnnData, net: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ImportError, match=r"^tl.enrichment needs decoupler: pip install 'sc-ldvae\[enrich\]'"):
        tl.enrichment(adata, net)


@pytest.mark.parametrize("method", get_args(Enrichment))
def test_nothing_is_printed_or_logged(
    adata: ad.AnnData,
    net: pd.DataFrame,
    method: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.DEBUG, logger="decoupler"):
        tl.enrichment(adata, net, method=method)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name in {"root", "decoupler"}]
    assert logging.getLogger().handlers == handlers
