"""Differential expression in closed form, against brute force; its layout is scanpy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.special import log_softmax, softmax

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


N_PAIRS = 20_000


def compare(adata: Any, groupby: str = "group", **kwargs: Any) -> Any:
    return sc_ldvae.tl.differential_expression(adata, groupby, progress=False, **kwargs)


def table(adata: AnnData, group: str, **kwargs: Any) -> Any:
    compare(adata, **kwargs)
    return sc_ldvae.get.differential_expression(adata, group)


@pytest.fixture(scope="module", params=["normal", "ln"])
def adata(request: pytest.FixtureRequest) -> AnnData:
    adata = sc_ldvae.datasets.simulate(400, 30, 3, n_batches=2, rng=0)
    sc_ldvae.tl.ldvae(
        adata, 3, batch_key="batch", latent_distribution=request.param, max_epochs=80, rng=0, progress=False
    )
    adata.obs["group"] = np.array(["a", "b", "c"])[np.argsort(np.argsort(adata.obsm["X_ldvae"][:, 0])) // 134]
    return adata


def params_of_fit(adata: AnnData) -> Any:
    return adata.uns["ldvae"]["params"]


def drawn(adata: AnnData, chosen: np.ndarray, batch: str | None, seed: int) -> np.ndarray:
    """Proportions of random cells under their posteriors, N_PAIRS x genes."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(np.flatnonzero(chosen), N_PAIRS)
    latent = adata.obsm["X_ldvae"][cells].astype(np.float64)
    noise = rng.standard_normal(latent.shape) * np.sqrt(adata.obsm["X_ldvae_variance"][cells])
    composition = params_of_fit(adata)["latent_distribution"] == "ln"
    z = softmax(np.log(latent) + noise, axis=1) if composition else latent + noise
    decoder, levels = adata.uns["ldvae"]["decoder"], adata.uns["ldvae"]["batches"]
    own = adata.obs["batch"].astype(str).to_numpy()[cells] if batch is None else np.full(N_PAIRS, batch)
    c = (own[:, None] == levels).astype(float)
    return np.exp(log_softmax(z @ decoder["loadings"].T + decoder["intercept"] + c @ decoder["covariate_effects"].T, 1))


@pytest.mark.parametrize(
    ("reference", "kwargs"),
    [
        pytest.param("rest", {}, id="rest"),
        pytest.param("c", {}, id="reference"),
        pytest.param("rest", {"batch_correction": True}, id="batch-correction"),
        pytest.param("rest", {"mode": "vanilla"}, id="vanilla"),
        pytest.param("rest", {"delta": 0.6, "pseudocount": 0.01}, id="delta-and-pseudocount"),
    ],
)
def test_values_are_those_of_many_random_pairs(adata: AnnData, reference: str, kwargs: dict[str, Any]) -> None:
    frame = table(adata, "a", reference=reference, **kwargs).loc[adata.var_names]
    params = adata.uns["rank_genes_groups"]["params"]
    group = adata.obs["group"].to_numpy()
    ups, downs, changes = [], [], []
    for batch in ("batch0", "batch1") if kwargs.get("batch_correction") else (None,):
        own = drawn(adata, group == "a", batch, 1)
        other = drawn(adata, group != "a" if reference == "rest" else group == reference, batch, 2)
        epsilon = 1e-9 if params["mode"] == "vanilla" else params["pseudocount"]
        change = np.log2(own + epsilon) - np.log2(other + epsilon)
        delta = 0 if params["mode"] == "vanilla" else params["delta"]
        ups.append((change >= delta).mean(0))
        downs.append((change <= -delta).mean(0))
        changes.append(change)
    up, down = np.mean(ups, axis=0), np.mean(downs, axis=0)
    # A softmax is less well described by its first derivatives than a linear map.
    loose = 3 if params_of_fit(adata)["latent_distribution"] == "ln" else 1
    np.testing.assert_allclose(frame["proba_de"], np.maximum(up, down), atol=0.025 * loose)
    change = np.concatenate(changes)
    np.testing.assert_allclose(frame["logfoldchanges"], change.mean(0), atol=0.05 * loose)
    np.testing.assert_allclose(frame["lfc_sd"], change.std(0), rtol=0.06 * loose)
    if len(changes) == 1:
        np.testing.assert_allclose(frame["proportion"], own.mean(0), rtol=0.05 * loose)
        np.testing.assert_allclose(frame["proportion_reference"], other.mean(0), rtol=0.05 * loose)


def test_derived_columns(adata: AnnData) -> None:
    fdr = float(table(adata, "b")["pvals_adj"].median())
    frame = table(adata, "b", fdr=fdr)
    assert frame["scores"].is_monotonic_decreasing
    np.testing.assert_allclose(frame["pvals"], 1 - frame["proba_de"], atol=1e-6)
    by_certainty = frame.sort_values("proba_de", ascending=False)
    false_calls = (1 - by_certainty["proba_de"].astype(float)).cumsum()
    np.testing.assert_allclose(by_certainty["pvals_adj"], false_calls / np.arange(1, len(frame) + 1), atol=1e-5)
    assert (frame["is_de"] == (frame["pvals_adj"] <= fdr)).all()
    assert 0 < frame["is_de"].sum() < len(frame)
    p = frame["proba_de"].astype(float)
    np.testing.assert_allclose(frame["bayes_factor"], np.log((p + 1e-4) / (1 - p + 1e-4)), rtol=1e-3, atol=1e-3)


def test_vanilla_score_is_the_bayes_factor_up_to_its_sign(adata: AnnData) -> None:
    frame = table(adata, "a", mode="vanilla")
    np.testing.assert_allclose(frame["scores"].abs(), frame["bayes_factor"], atol=1e-5)


def test_order_of_cells_and_other_groups_do_not_matter(adata: AnnData) -> None:
    expected = table(adata, "a")
    permuted = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    pd.testing.assert_frame_equal(table(permuted, "a").loc[expected.index], expected, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(table(adata, "a", groups=["a"]), expected)


def test_two_groups_mirror_each_other(adata: AnnData) -> None:
    two = adata[adata.obs["group"] != "c"].copy()
    own, other = table(two, "a"), table(two, "b")
    own = own.loc[other.index]
    np.testing.assert_allclose(own["logfoldchanges"], -other["logfoldchanges"], atol=1e-5)
    np.testing.assert_allclose(own["proba_de"], other["proba_de"], atol=1e-6)
    np.testing.assert_allclose(own["scores"], -other["scores"], atol=1e-4)
    np.testing.assert_array_equal(table(two, "a", reference="b").loc[other.index], own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "plot", ["", "_violin", "_stacked_violin", "_heatmap", "_dotplot", "_matrixplot", "_tracksplot"]
)
def test_scanpy_plots_take_it(plot: str, pbmc: AnnData, fit_quickly: Any) -> None:
    pbmc.var["chosen"] = np.arange(pbmc.n_vars) % 3 > 0
    fit_quickly(pbmc, mask_var="chosen")
    compare(pbmc, "bulk_labels")
    sc.pp.log1p(pbmc)
    sc.tl.dendrogram(pbmc, "bulk_labels", use_rep="X_ldvae")
    getattr(sc.pl, f"rank_genes_groups{plot}")(pbmc, n_genes=3, show=False)
    if plot in {"_dotplot", "_matrixplot"}:
        getattr(sc.pl, f"rank_genes_groups{plot}")(pbmc, n_genes=3, values_to_plot="logfoldchanges", show=False)
    frame = sc.get.rank_genes_groups_df(pbmc, None)
    assert len(frame) == pbmc.n_vars * pbmc.obs["bulk_labels"].nunique()
    assert not frame.loc[~frame["names"].isin(pbmc.var_names[pbmc.var["chosen"]]), "logfoldchanges"].any()
    assert len(sc_ldvae.get.differential_expression(pbmc, "CD19+ B")) == pbmc.var["chosen"].sum()


def test_known_markers_head_the_real_cells(pbmc: AnnData) -> None:
    sc_ldvae.tl.ldvae(pbmc, progress=False)
    compare(pbmc, "bulk_labels")
    best = {
        group: set(sc_ldvae.get.differential_expression(pbmc, group).index[:20]) for group in ("CD19+ B", "CD56+ NK")
    }
    assert "CD79A" in best["CD19+ B"]
    assert len({"CCL4", "CD160", "CTSW", "GNLY", "GZMB", "NKG7", "PRF1"} & best["CD56+ NK"]) > 1


def test_file_and_scanpy_give_the_same_frame(adata: AnnData, tmp_path: Path) -> None:
    adata = adata.copy()
    expected = table(adata, "a")
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(sc_ldvae.get.differential_expression(stored, "a"), expected)
    frame = sc.get.rank_genes_groups_df(adata, "a").set_index("names")
    pd.testing.assert_frame_equal(frame, expected[frame.columns], check_index_type=False)
    every = sc_ldvae.get.differential_expression(adata)
    pd.testing.assert_frame_equal(every.loc["a"], expected)


def test_cells_without_a_group_counts_and_lost_genes(adata: AnnData) -> None:
    part = adata.copy()
    part.obs["group"] = part.obs["group"].astype("category")
    part.obs.loc[part.obs["group"] == "c", "group"] = np.nan
    del part.X
    expected = table(adata[adata.obs["group"] != "c"].copy(), "a")
    pd.testing.assert_frame_equal(table(part, "a"), expected)
    fewer = part[:, 5:].copy()
    assert set(table(fewer, "a").index) == set(part.var_names[5:])
    result = compare(part, copy=True, key_added="mine")
    assert "mine" in result.uns
    assert "mine" not in part.uns


def one_cell(adata: AnnData) -> None:
    adata.obs.loc[adata.obs_names[0], "group"] = "alone"


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        pytest.param(None, {"groupby": "x"}, ValueError, r"^groupby='x' is not a column of obs", id="column"),
        pytest.param(None, {"groups": ["z"]}, ValueError, r"^'z' is not a group of obs\['group'\]", id="group"),
        pytest.param(None, {"reference": "z"}, ValueError, r"^'z' is not a group of obs\['group'\]", id="reference"),
        pytest.param(
            None, {"groups": "a"}, TypeError, r"^groups must be 'all' or a list of groups: \['a'\]", id="text"
        ),
        pytest.param(one_cell, {}, ValueError, r"^'alone' has 1 cells in obs\['group'\], too few", id="one-cell"),
        pytest.param(
            one_cell, {"groups": ["a"], "reference": "alone"}, ValueError, "^'alone' has 1 cells", id="one-reference"
        ),
        pytest.param(
            None, {"groups": ["a"], "reference": "a"}, ValueError, "^groups names no group beside", id="itself"
        ),
        pytest.param(None, {"mode": "t-test"}, ValueError, "^mode='t-test' is unknown", id="mode"),
        pytest.param(None, {"delta": 0}, ValueError, "^delta must be above 0", id="delta"),
        pytest.param(None, {"fdr": 1}, ValueError, "^fdr must be between 0 and 1", id="fdr"),
        pytest.param(None, {"pseudocount": 0}, ValueError, "^pseudocount must be above 0", id="pseudocount"),
        pytest.param(None, {"key": "foo"}, ValueError, r"^uns\['foo'\] holds no fit", id="no-fit"),
    ],
)
def test_refused_and_unchanged(
    change: Callable[[AnnData], None] | None,
    kwargs: dict[str, Any],
    error: type[Exception],
    message: str,
    adata: AnnData,
    unchanged: Any,
) -> None:
    adata = adata.copy()
    if change is not None:
        change(adata)
    with unchanged(adata), pytest.raises(error, match=message):
        compare(adata, **{"groupby": "group"} | kwargs)


def test_batch_correction_needs_a_batch(simulated: AnnData, fit_quickly: Any) -> None:
    adata = simulated.copy()
    fit_quickly(adata)
    with pytest.raises(ValueError, match=r"^batch_correction=True was given, but the fit has no batch"):
        compare(adata, "batch", batch_correction=True)
