"""Explained deviance: the tool against SciPy, thinning against noise, and what is refused."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    AssertSame = Callable[[object, object], None]
    Unchanged = Callable[[ad.AnnData], AbstractContextManager[None]]

SHARES = ("total", "base", "share", "marginal", "cumulative")
NAME = "ldvae_explained_deviance"


def explained(data: ad.AnnData, groupby: str | None = None, **options: Any) -> dict[str, Any]:
    result = tl.explained_deviance(data, groupby, copy=True, progress=False, **options)
    return result.uns[options.get("key_added", f"{options.get('key', 'ldvae')}_explained_deviance")]


def deviance(x: np.ndarray, mean: np.ndarray, theta: np.ndarray | None) -> np.ndarray:
    """Of each cell: twice the log-likelihood that `mean` falls short of ``mean = x``."""

    def log_likelihood(m: np.ndarray) -> np.ndarray:
        terms = stats.poisson.logpmf(x, m) if theta is None else stats.nbinom.logpmf(x, theta, theta / (theta + m))
        return terms.sum(axis=1)

    return 2 * (log_likelihood(np.maximum(x, 1e-12)) - log_likelihood(mean))


@pytest.mark.parametrize("cells", ["held_out", "all"])
def test_shares_are_those_of_scipys_likelihoods(fitted: ad.AnnData, cells: str) -> None:
    adata = fitted.copy()
    adata.obs["group"] = pd.Categorical(np.where(np.arange(200) % 3, "often", "rarely"), ["rarely", "never", "often"])
    adata.obs.loc[adata.obs_names[:10], "group"] = None
    got = explained(adata, "group", cells=cells)

    stored, held_out = adata.uns["ldvae"]["decoder"], adata.obs["ldvae_held_out"].to_numpy()
    scored = held_out if cells == "held_out" else np.ones(200, dtype=bool)
    latent, number = adata.obsm["X_ldvae"].astype(np.float64), adata.obs["covariate1"].to_numpy()
    covariates = np.column_stack([pd.get_dummies(adata.obs["batch"]), (number - number.mean()) / number.std()])
    rest = stored["intercept"] + covariates.astype(np.float64) @ stored["covariate_effects"].T
    x, theta = adata.X.toarray().astype(np.float64), np.exp(stored["log_theta"].astype(np.float64))
    library, training = adata.obs[["ldvae_library"]].to_numpy(np.float64), x[~held_out]

    def expression(at_mean: tuple[int, ...], offset: np.ndarray | float = 0.0) -> np.ndarray:
        shown = latent.copy()
        shown[:, at_mean] = latent[scored][:, at_mean].mean(axis=0)
        return library * softmax(shown @ stored["loadings"].T + rest + offset, axis=1)

    def of_model(at_mean: tuple[int, ...]) -> np.ndarray:
        every, some = (expression(sets)[scored].sum(axis=0) for sets in ((), at_mean))
        return deviance(x, expression(at_mean, np.log(every / some)), theta)

    totals = training.sum(axis=0) + 0.5
    null = deviance(x, library * totals / totals.sum(), theta)
    sets = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    without = {frozenset(one): of_model(one) for one in sets}

    def assert_shares(shares: dict[str, Any], chosen: np.ndarray) -> None:
        total = null[chosen].sum()
        lost = {one: values[chosen].sum() / total for one, values in without.items()}

        def shares_in(order: tuple[int, ...]) -> np.ndarray:
            """What each factor takes away when it comes."""
            missing = [frozenset(order[place:]) for place in range(4)]
            taken = {k: lost[missing[place]] - lost[missing[place + 1]] for place, k in enumerate(order)}
            return np.array([taken[k] for k in range(3)])

        both_ways = [(shares_in(order) + shares_in(order[::-1])) / 2 for order in permutations(range(3))]
        model, base = lost[frozenset()], 1 - lost[frozenset({0, 1, 2})]
        expected = {
            "total": 1 - model,
            "base": base,
            "marginal": [lost[frozenset({k})] - model for k in range(3)],
        }
        # Two of the orders, which are nearly all of them.
        assert any(np.allclose(shares["share"], share, rtol=1e-3, atol=1e-6) for share in both_ways)
        np.testing.assert_allclose(shares["share"], np.mean(both_ways, axis=0), atol=1e-3)
        assert np.sum(shares["share"]) == pytest.approx(shares["total"] - shares["base"], rel=1e-12)
        np.testing.assert_allclose(shares["cumulative"], shares["base"] + np.cumsum(shares["share"]), rtol=1e-12)
        for name, value in expected.items():
            np.testing.assert_allclose(shares[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        assert shares["n_cells"] == chosen.sum()

    assert_shares(got, scored)
    groups = got["groups"]
    assert groups["name"].tolist() == ["rarely", "often"]
    for row, name in enumerate(groups["name"]):
        own = {part: groups[part][row] for part in (*SHARES, "n_cells")}
        assert_shares(own, scored & (adata.obs["group"] == name).to_numpy())
    assert got["params"] == {"cells": cells, "thinned": 0.0, "groupby": "group"}


def test_shares_of_held_out_cells_are_those_of_the_record(fitted: ad.AnnData) -> None:
    got, stored = explained(fitted), fitted.uns["ldvae"]
    assert got["total"] == pytest.approx(stored["total_explained_deviance"], rel=1e-4)
    np.testing.assert_allclose(got["share"], stored["explained_deviance"], rtol=1e-3, atol=1e-6)
    assert got["cumulative"][-1] == pytest.approx(got["total"], rel=1e-12)
    assert "groups" not in got


def test_without_groups_as_many_held_out_cells_are_measured_as_by_the_fit(
    fitted: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = fitted.obs["ldvae_held_out"].sum()
    assert n == 20
    every, groups = explained(fitted), explained(fitted, "batch")
    monkeypatch.setattr("sc_ldvae.assess._deviance._CELLS_FOR_DEVIANCE", 7)
    some = explained(fitted)
    assert (some["n_cells"], every["n_cells"], explained(fitted, thinned=0.5)["n_cells"]) == (7, n, 7)
    assert some["total"] != every["total"]
    for more in ({"groupby": "batch"}, {"cells": "all"}):
        assert explained(fitted, **more)["n_cells"] == (n if "groupby" in more else 200)
    np.testing.assert_array_equal(groups["share"], every["share"])
    adata = tl.rotate(fitted, key_added="turned", copy=True)
    got = explained(adata, key="turned")
    np.testing.assert_allclose(got["share"], adata.uns["turned"]["explained_deviance"], rtol=1e-3, atol=1e-6)


def test_groups_add_up(fitted: ad.AnnData) -> None:
    """Weighted by the deviance of the null, which the share that one cell explains does not hold."""
    got = explained(fitted, "batch", cells="all")
    groups = got["groups"]
    # The weight of the first group that the totals imply is that which every other share implies.
    (first, second) = groups["total"]
    weight = (got["total"] - second) / (first - second)
    assert 0 < weight < 1
    for name in SHARES:
        mixed = weight * groups[name][0] + (1 - weight) * groups[name][1]
        np.testing.assert_allclose(mixed, got[name], rtol=1e-6, atol=1e-9)
    assert groups["n_cells"].tolist() == fitted.obs["batch"].value_counts().loc[groups["name"]].tolist()


@pytest.mark.parametrize("gene_likelihood", ["nb", "poisson"])
def test_noise_explains_nothing_of_counts_that_the_encoder_has_not_read(gene_likelihood: str) -> None:
    """Two factors and four that are not there."""
    adata = sc_ldvae.datasets.simulate(600, 150, 2, rng=1, gene_likelihood=gene_likelihood, mean_library=500)
    options = {"max_epochs": 60, "gene_likelihood": gene_likelihood, "train_size": 0.5, "progress": False}
    tl.ldvae(adata, 6, loadings_prior=None, **options)
    read, thinned = explained(adata), explained(adata, thinned=0.3)
    assert thinned["total"] > 0.05
    assert (thinned["share"][:2] > 0.005).all()
    assert read["share"][2:].min() > 0.0015
    assert np.abs(thinned["share"][2:]).max() < 0.0015
    assert thinned["params"] == {"cells": "held_out", "thinned": 0.3, "groupby": ""}


def test_whether_there_are_counts_is_not_thinned(
    simulated: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], unchanged: Unchanged
) -> None:
    adata = fit_quickly(simulated, gene_likelihood="bernoulli", copy=True)
    assert explained(adata)["total"] == pytest.approx(adata.uns["ldvae"]["total_explained_deviance"], rel=1e-4)
    sentence = r"^thinned=0\.5, but the fit uns\['ldvae'\] has gene_likelihood='bernoulli', and"
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        explained(adata, thinned=0.5)


def test_thinning_depends_on_its_seed_alone(fitted: ad.AnnData, assert_same: AssertSame) -> None:
    one = explained(fitted, thinned=0.2, rng=3)
    np.random.seed(1)  # noqa: NPY002  the point of the test
    assert_same(explained(fitted, thinned=0.2, rng=np.random.default_rng(3)), one)
    assert explained(fitted, thinned=0.2, rng=4)["total"] != one["total"]


@pytest.mark.parametrize("thinned", [None, 0.3])
@pytest.mark.parametrize("method", ["varimax", "promax"])
def test_rotation_changes_the_factors_not_the_total(fitted: ad.AnnData, method: str, thinned: float | None) -> None:
    adata = fitted.copy()
    tl.rotate(adata, method, key_added="turned")
    first, turned = (explained(adata, key=key, thinned=thinned) for key in ("ldvae", "turned"))
    for name in ("total", "base"):
        assert turned[name] == pytest.approx(first[name], rel=1e-4)
    assert np.abs(turned["share"] - first["share"]).max() > 1e-4
    if thinned is None:
        np.testing.assert_allclose(turned["share"], adata.uns["turned"]["explained_deviance"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"size_factor_key": "true_library"}, id="size-factor"),
        pytest.param({"use_observed_lib_size": True}, id="observed-library"),
        pytest.param({"gene_likelihood": "zinb", "dispersion": "gene-cell"}, id="zinb-gene-cell"),
        pytest.param({"gene_likelihood": "poisson", "batch_key": "batch"}, id="poisson"),
        pytest.param({"dispersion": "gene-batch", "batch_key": "batch"}, id="gene-batch"),
        pytest.param({"latent_distribution": "ln"}, id="ln"),
        pytest.param({"layer": "counts", "key_added": "foo", "mask_var": "chosen"}, id="layer-mask"),
    ],
)
def test_every_kind_of_fit(
    simulated: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], options: dict[str, Any], tmp_path: Path
) -> None:
    adata = simulated.copy()
    adata.layers["counts"] = adata.X.copy()
    if "layer" in options:
        adata.X = None
    adata.var["chosen"] = np.arange(60) % 5 > 0
    fit_quickly(adata, max_epochs=20, **options)
    key = options.get("key_added", "ldvae")
    plain = explained(adata, key=key)
    assert plain["total"] == pytest.approx(adata.uns[key]["total_explained_deviance"], rel=1e-4)
    tl.explained_deviance(adata, "batch", key=key, thinned=0.5, progress=False)
    assert -0.2 < adata.uns[f"{key}_explained_deviance"]["total"] < plain["total"] + 0.1
    adata.write_h5ad(tmp_path / "fit.h5ad")
    adata.write_zarr(tmp_path / "fit.zarr")
    for back in (ad.read_h5ad(tmp_path / "fit.h5ad"), ad.read_zarr(tmp_path / "fit.zarr")):
        for name in SHARES:
            got, stored = (one.uns[f"{key}_explained_deviance"] for one in (back, adata))
            np.testing.assert_array_equal(got[name], stored[name])
            np.testing.assert_array_equal(got["groups"][name], stored["groups"][name])


@pytest.mark.parametrize(
    ("observed", "share"),
    [
        pytest.param(False, 0.1, id="none-to-judge-by"),
        pytest.param(True, 0.1, id="none-to-judge-by-observed-library"),
        pytest.param(True, 0.9, id="no-library"),
    ],
)
def test_cells_that_thinning_leaves_without_counts_are_left_out(
    simulated: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], observed: bool, share: float
) -> None:
    adata = simulated.copy()
    dense = np.zeros(adata.shape, dtype=np.float32)
    dense[:, :4] = adata.X.toarray()[:, :4] > 0
    dense[np.arange(200), np.arange(200) % 60] += 1
    adata.X = sparse.csr_matrix(dense)
    fit_quickly(adata, use_observed_lib_size=observed)
    got = explained(adata, cells="all", thinned=share)
    assert 0 < got["n_cells"] < 200
    assert np.isfinite([got["total"], *got["share"], *got["marginal"]]).all()


def test_projected_cells_are_judged_beside_themselves(fitted: ad.AnnData) -> None:
    query = fitted[:50].copy()
    for part in (query.obsm, query.varm, query.uns):
        part.clear()
    tl.project(query, fitted, progress=False)
    got = explained(query)
    assert got["n_cells"] == 50
    assert got["total"] == explained(query, cells="all")["total"]


def test_where_the_result_goes(fitted: ad.AnnData, assert_same: AssertSame, unchanged: Unchanged) -> None:
    with unchanged(fitted):
        expected = explained(fitted, "batch")
    adata = fitted.copy()
    assert tl.explained_deviance(adata, "batch", key_added="mine", progress=False) is None
    assert_same(adata.uns.pop("mine"), expected)
    assert_same(adata, fitted)
    data = mudata.MuData({"rna": fitted.copy()})
    tl.explained_deviance(data, "batch", modality="rna", progress=False)
    assert_same(data.mod["rna"].uns.pop(NAME), expected)
    assert_same(data.mod["rna"], fitted)


def without_counts(adata: ad.AnnData) -> None:
    adata.X = None


def without_groups(adata: ad.AnnData) -> None:
    adata.obs["group"] = pd.Categorical([None] * adata.n_obs, ["a"])


def none_held_out(adata: ad.AnnData) -> None:
    adata.obs["ldvae_held_out"] = False


def without_mark(adata: ad.AnnData) -> None:
    del adata.obs["ldvae_held_out"]


def as_it_is(_: ad.AnnData) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        pytest.param(as_it_is, {"groupby": "nothing"}, r"groupby='nothing' is not a column of obs", id="no-column"),
        pytest.param(without_groups, {"groupby": "group"}, r"obs\['group'\] has no group for any of", id="no-groups"),
        pytest.param(as_it_is, {"cells": "training"}, r"cells='training' is unknown. Choose .* 'all'", id="cells"),
        pytest.param(none_held_out, {}, r"no cell was held out from the fit. Pass cells='all'", id="none-held-out"),
        pytest.param(without_mark, {}, r"no cell was held out from the fit. Pass cells='all'", id="no-mark"),
        pytest.param(without_counts, {}, r"X is empty. Name the layer", id="no-counts"),
        pytest.param(without_counts, {"thinned": 0.2}, r"X is empty. Name the layer", id="no-counts-to-thin"),
        pytest.param(as_it_is, {"layer": "none"}, r"layer='none' is not in layers", id="no-layer"),
        pytest.param(as_it_is, {"thinned": 0}, r"thinned must be above 0 and below 1, but is 0. Give", id="thinned-0"),
        pytest.param(as_it_is, {"thinned": 1.0}, r"thinned must be above 0 and below 1, but is 1.0", id="thinned-1"),
        pytest.param(as_it_is, {"thinned": 1e-9}, r"thinned=1e-09 leaves no count to", id="thinned-too-little"),
        pytest.param(as_it_is, {"key": "other"}, r"uns\['other'\] holds no fit", id="no-fit"),
        pytest.param(as_it_is, {"key_added": "a/b"}, r"key_added='a/b' can't name", id="slash"),
        pytest.param(as_it_is, {"key_added": "ldvae"}, r"key_added='ldvae' would replace the fit", id="over-the-fit"),
    ],
)
def test_refused(
    fitted: ad.AnnData,
    unchanged: Unchanged,
    change: Callable[[ad.AnnData], None],
    options: dict[str, Any],
    sentence: str,
) -> None:
    adata = fitted.copy()
    change(adata)
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        tl.explained_deviance(adata, **options, progress=False)
