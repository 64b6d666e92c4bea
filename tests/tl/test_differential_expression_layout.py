"""Where a comparison is stored, what reads it, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[ad.AnnData], ad.AnnData]

N_OBS, N_VARS, N_FITTED = 120, 40, 30
SCANPY = ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]
OWN = ["lfc_sd", "proba_de", "bayes_factor", "is_de", "proportion", "proportion_reference"]


@pytest.fixture(scope="module")
def sound() -> ad.AnnData:
    """Fitted with a batch; groups by a factor, one of them named by one cell alone."""
    adata = sc_ldvae.datasets.simulate(N_OBS, N_VARS, 2, n_batches=2, mean_library=1000, rng=0)
    order = np.argsort(np.argsort(adata.obsm["true_latent"][:, 0]))
    adata.obs["group"] = pd.Categorical(np.array(["low", "middle", "high"])[order // 40])
    adata.obs["lone"] = pd.Categorical(["one"] + ["some", "other", "more"] * 39 + ["some", "some"])
    adata.var["chosen"] = np.arange(N_VARS) % 4 > 0
    tl.ldvae(adata, 2, batch_key="batch", mask_var="chosen", max_epochs=20, rng=0, progress=False)
    return adata


@pytest.fixture
def adata(sound: ad.AnnData) -> ad.AnnData:
    return sound.copy()


@pytest.fixture(scope="module", params=[False, True], ids=["all-genes", "gene-mask"])
def compared(request: pytest.FixtureRequest, sound: ad.AnnData) -> ad.AnnData:
    """With a result, log-normalised as scanpy's plots want it; shared by all tests: change a copy."""
    adata = sound.copy()
    if not request.param:
        tl.ldvae(adata, 2, batch_key="batch", max_epochs=20, rng=0, progress=False)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    # Otherwise the plots make one of X, which scanpy 1.11 can't where it is sparse and has few genes.
    sc.tl.dendrogram(adata, "group", use_rep="X_ldvae")
    compare(adata)
    return adata


def compare(data: Any, groupby: str = "group", **options: Any) -> Any:
    return tl.differential_expression(data, groupby, **{"progress": False} | options)


def frame_of(adata: ad.AnnData, **options: Any) -> pd.DataFrame:
    return get.differential_expression(compare(adata, copy=True, **options))


def test_structured_arrays_as_scanpy_leaves_them(compared: ad.AnnData) -> None:
    stored = compared.uns["rank_genes_groups"]
    theirs = sc.tl.rank_genes_groups(compared, "group", method="t-test", copy=True).uns["rank_genes_groups"]
    assert list(stored) == ["params", *SCANPY, *OWN]
    assert set(theirs["params"]) - {"layer", "corr_method"} <= set(stored["params"])
    for column in SCANPY:
        assert stored[column].dtype == theirs[column].dtype
        assert stored[column].shape == (len(compared.uns["ldvae"]["genes"]),)
        assert theirs[column].shape == (N_VARS,)
    assert all(stored[column].dtype.names == ("high", "low", "middle") for column in OWN)
    assert {stored[column].dtype[0].kind for column in OWN if column != "is_de"} == {"f"}
    assert stored["is_de"].dtype[0].kind == "b"


def test_params_are_the_arguments(adata: ad.AnnData) -> None:
    options = {"reference": "low", "mode": "change", "delta": 0.5, "fdr": 0.1, "pseudocount": 1e-5}
    compare(adata, batch_correction=True, **options)
    expected = {"groupby": "group", "method": "ldvae", "use_raw": False, "key": "ldvae", "batch_correction": True}
    params = dict(adata.uns["rank_genes_groups"]["params"])
    assert params.pop("groups").tolist() == ["high", "middle"]
    assert params.pop("checksum")
    assert params == expected | options
    compare(adata, mode="vanilla", pseudocount=1e-5)
    assert adata.uns["rank_genes_groups"]["params"]["pseudocount"] == 1e-9


def test_genes_that_were_not_fitted_are_no_part_of_it(adata: ad.AnnData) -> None:
    compare(adata)
    stored, fitted = adata.uns["rank_genes_groups"], adata.var_names[adata.var["chosen"]]
    for group in ("low", "middle", "high"):
        one = pd.DataFrame({column: stored[column][group] for column in SCANPY + OWN}).set_index("names")
        assert len(one) == N_FITTED
        assert set(one.index) == set(fitted)
        assert (np.diff(one["scores"]) <= 0).all()
        assert (one["proportion_reference"] > 0).all()


def test_results_of_earlier_versions_have_zeros_for_them(adata: ad.AnnData) -> None:
    compare(adata)
    stored, expected = adata.uns["rank_genes_groups"], get.differential_expression(adata)
    del stored["params"]["checksum"]
    others = adata.var_names[~adata.var["chosen"]]
    for column in SCANPY + OWN:
        own = stored[column]
        zeros = np.zeros(len(others), own.dtype)
        for group in ("low", "middle", "high"):
            zeros[group] = others if column == "names" else float(column in {"pvals", "pvals_adj"})
        # They stood among genes whose score was zero.
        stored[column] = np.concatenate([own[:7], zeros, own[7:]])
    pd.testing.assert_frame_equal(get.differential_expression(adata), expected, check_exact=True)
    assert len(get.differential_expression(adata, "low")) == N_FITTED


def test_scanpys_frame(compared: ad.AnnData) -> None:
    stored = compared.uns["rank_genes_groups"]
    one = sc.get.rank_genes_groups_df(compared, group="high")
    assert one.columns.tolist() == SCANPY
    for column in SCANPY:
        np.testing.assert_array_equal(one[column], stored[column]["high"])
    everything = sc.get.rank_genes_groups_df(compared, group=None)
    assert everything["group"].value_counts().to_dict() == dict.fromkeys(["high", "low", "middle"], len(one))
    assert len(one) == len(compared.uns["ldvae"]["genes"])
    cut = sc.get.rank_genes_groups_df(compared, group="high", pval_cutoff=0.3, log2fc_min=0.5)
    kept = one[(one["pvals_adj"] < 0.3) & (one["logfoldchanges"] > 0.5)]
    assert 0 < len(kept) < len(one)
    assert cut["names"].tolist() == kept["names"].tolist()


@pytest.mark.parametrize(
    ("plot", "options"),
    [
        pytest.param("rank_genes_groups", {}, id="panels"),
        pytest.param("rank_genes_groups_violin", {"n_genes": 3, "groups": ["high"]}, id="violin"),
        pytest.param("rank_genes_groups_stacked_violin", {"n_genes": 3}, id="stacked-violin"),
        pytest.param("rank_genes_groups_heatmap", {"n_genes": 3}, id="heatmap"),
        pytest.param("rank_genes_groups_dotplot", {"n_genes": 3}, id="dotplot"),
        pytest.param(
            "rank_genes_groups_dotplot", {"n_genes": 3, "values_to_plot": "logfoldchanges"}, id="dotplot-changes"
        ),
        pytest.param(
            "rank_genes_groups_dotplot", {"values_to_plot": "log10_pvals_adj", "min_logfoldchange": 0.5}, id="cutoff"
        ),
        pytest.param("rank_genes_groups_matrixplot", {"n_genes": 3}, id="matrixplot"),
        pytest.param(
            "rank_genes_groups_matrixplot", {"n_genes": N_VARS, "values_to_plot": "scores"}, id="matrixplot-all-genes"
        ),
        pytest.param("rank_genes_groups_tracksplot", {"n_genes": 3}, id="tracksplot"),
    ],
)
# scanpy 1.11 sets labels without ticks.
@pytest.mark.filterwarnings("ignore:set_ticklabels.. should only be used with a fixed number of ticks:UserWarning")
def test_scanpys_plots_take_it(plot: str, options: dict[str, Any], compared: ad.AnnData) -> None:
    if "values_to_plot" in options:
        # scanpy wants them of all genes.
        compared = compared[:, compared.uns["ldvae"]["genes"]]
    getattr(sc.pl, plot)(compared.copy(), show=False, **options)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    texts = {text.get_text() for figure in figures for text in figure.findobj(plt.Text)}
    names = compared.uns["rank_genes_groups"]["names"]
    # No gene of the other groups is above the threshold.
    groups = ["high"] if {"groups", "min_logfoldchange"} & options.keys() else ["high", "low", "middle"]
    assert {names[group][0] for group in groups} <= texts


def test_scanpys_dots_have_our_fold_changes(compared: ad.AnnData) -> None:
    genes = compared.uns["ldvae"]["genes"][:5].tolist()
    dots = sc.pl.rank_genes_groups_dotplot(
        compared[:, compared.uns["ldvae"]["genes"]].copy(),
        var_names=genes,
        values_to_plot="logfoldchanges",
        show=False,
        return_fig=True,
    )
    frame = get.differential_expression(compared)["logfoldchanges"]
    for group in ("low", "middle", "high"):
        np.testing.assert_array_equal(dots.dot_color_df.loc[group, genes], frame.loc[group].loc[genes])


def test_scanpys_filter_takes_it(compared: ad.AnnData) -> None:
    adata = compared.copy()
    sc.tl.filter_rank_genes_groups(adata, min_fold_change=1.2, min_in_group_fraction=0.1, max_out_group_fraction=1.0)
    before, after = adata.uns["rank_genes_groups"]["names"], adata.uns["rank_genes_groups_filtered"]["names"]
    for group in ("low", "middle", "high"):
        kept = ~pd.isna(after[group])
        np.testing.assert_array_equal(after[group][kept], before[group][kept])
        assert kept.sum() < len(kept)
    assert not pd.isna(after["high"]).all()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_give_the_same_back(suffix: str, compared: ad.AnnData, tmp_path: Path) -> None:
    file = tmp_path / f"compared{suffix}"
    if suffix == ".zarr":
        compared.write_zarr(file)
        back = ad.read_zarr(file)
    else:
        compared.write_h5ad(file)
        back = ad.read_h5ad(file)
    for group in (None, "high"):
        expected = get.differential_expression(compared, group)
        pd.testing.assert_frame_equal(get.differential_expression(back, group), expected, check_exact=True)
    for column in SCANPY:
        np.testing.assert_array_equal(
            sc.get.rank_genes_groups_df(back, "high")[column], sc.get.rank_genes_groups_df(compared, "high")[column]
        )
    # Compared again, from the file alone.
    pd.testing.assert_frame_equal(frame_of(back), get.differential_expression(compared), check_exact=True)


def test_frame_has_all_columns_of_fitted_genes(compared: ad.AnnData) -> None:
    one, everything = get.differential_expression(compared, "low"), get.differential_expression(compared)
    fitted, stored = compared.uns["ldvae"]["genes"], compared.uns["rank_genes_groups"]
    assert one.columns.tolist() == everything.columns.tolist() == SCANPY[1:] + OWN
    assert one.index.name == "names"
    assert everything.index.names == ["group", "names"]
    assert one.index.tolist() == stored["names"]["low"].tolist()
    assert everything.index.get_level_values("group").value_counts().to_dict() == dict.fromkeys(
        ["high", "low", "middle"], len(fitted)
    )
    pd.testing.assert_frame_equal(everything.loc["low"], one)
    one["scores"] = 0.0
    assert stored["scores"]["low"].any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            {"key": "nothing"}, r"^uns\['nothing'\] holds no comparison by sc_ldvae\.tl\.diff.*key=", id="key"
        ),
        pytest.param({"key": "theirs"}, r"^uns\['theirs'\] holds no comparison", id="scanpys-own"),
        pytest.param(
            {"group": "none"}, "^group='none' was not compared. Groups: 'high', 'low', 'middle'", id="unknown-group"
        ),
    ],
)
def test_frame_of_what_is_not_there_is_refused(
    arguments: dict[str, str], sentence: str, compared: ad.AnnData, unchanged: Callable[..., Any]
) -> None:
    adata = compared.copy()
    sc.tl.rank_genes_groups(adata, "group", method="t-test", key_added="theirs")
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        get.differential_expression(adata, **arguments)


def test_nothing_else_is_touched(adata: ad.AnnData, assert_same: Callable[..., None]) -> None:
    before = adata.copy()
    assert compare(adata) is None
    del adata.uns["rank_genes_groups"]
    assert_same(adata, before)


def test_copy_leaves_the_input(adata: ad.AnnData, unchanged: Callable[..., Any]) -> None:
    with unchanged(adata):
        result = compare(adata, copy=True)
    compare(adata)
    pd.testing.assert_frame_equal(
        get.differential_expression(result), get.differential_expression(adata), check_exact=True
    )


def test_results_stand_beside_each_other(adata: ad.AnnData, sound: ad.AnnData) -> None:
    compare(adata)
    compare(adata, key_added="vanilla", mode="vanilla")
    assert adata.uns["vanilla"]["params"]["mode"] == "vanilla"
    assert adata.uns["rank_genes_groups"]["params"]["mode"] == "change"
    own, other = (get.differential_expression(adata, "low", key=key) for key in ("rank_genes_groups", "vanilla"))
    pd.testing.assert_frame_equal(own, frame_of(sound).loc["low"], check_exact=True)
    assert (own["proba_de"] < other.loc[own.index, "proba_de"]).any()


def test_a_result_is_replaced(adata: ad.AnnData) -> None:
    sc.tl.rank_genes_groups(adata, "group", method="t-test")
    compare(adata, groups=["high"])
    assert adata.uns["rank_genes_groups"]["names"].dtype.names == ("high",)
    assert "pts" not in adata.uns["rank_genes_groups"]


def test_named_fit(adata: ad.AnnData, sound: ad.AnnData) -> None:
    tl.ldvae(adata, 2, max_epochs=3, key_added="other", progress=False)
    pd.testing.assert_frame_equal(frame_of(adata), frame_of(sound), check_exact=True)
    other = frame_of(adata, key="other")
    assert len(other) == 3 * N_VARS
    assert compare(adata, key="other", copy=True).uns["rank_genes_groups"]["params"]["key"] == "other"


def test_counts_are_not_needed(adata: ad.AnnData, sound: ad.AnnData) -> None:
    del adata.X
    pd.testing.assert_frame_equal(frame_of(adata), frame_of(sound), check_exact=True)


def test_modality(adata: ad.AnnData, sound: ad.AnnData) -> None:
    other = ad.AnnData(np.ones((N_OBS, 2), np.float32), obs=adata.obs[[]], var=pd.DataFrame(index=["peak1", "peak2"]))
    mdata = mudata.MuData({"rna": adata, "atac": other})
    copy = compare(mdata, modality="rna", copy=True)
    assert "rank_genes_groups" not in mdata["rna"].uns
    assert compare(mdata, modality="rna") is None
    for one in (copy, mdata):
        frame = get.differential_expression(one, modality="rna")
        pd.testing.assert_frame_equal(frame, frame_of(sound), check_exact=True)
    assert "rank_genes_groups" not in mdata["atac"].uns


def test_genes_that_are_gone_still_count_in_the_proportions(sound: ad.AnnData) -> None:
    few = sound[:, ["gene2", "gene0", "gene7", "gene1"]]
    everything, frame = frame_of(sound), frame_of(few)
    assert set(frame.index.unique("names")) == {"gene2", "gene7", "gene1"}
    columns = [column for column in frame if column not in ("pvals_adj", "is_de")]
    pd.testing.assert_frame_equal(frame[columns], everything.loc[frame.index, columns], rtol=1e-6, atol=1e-9)
    surest = np.sort(frame.loc["high", "pvals"])
    np.testing.assert_allclose(np.sort(frame.loc["high", "pvals_adj"]), np.cumsum(surest) / [1, 2, 3])


def test_genes_may_be_lost_after_the_comparison(adata: ad.AnnData, sound: ad.AnnData) -> None:
    compare(adata)
    pd.testing.assert_frame_equal(get.differential_expression(adata[:, :5]), frame_of(sound), check_exact=True)


def test_cells_that_are_gone_do_not_count(sound: ad.AnnData) -> None:
    adata = sound[np.arange(N_OBS) % 3 > 0].copy()
    adata.obsm["X_ldvae_variance"][:] = 0
    decoder, levels = adata.uns["ldvae"]["decoder"], adata.uns["ldvae"]["batches"]
    batch = adata.obs["batch"].to_numpy()[:, None] == levels
    eta = adata.obsm["X_ldvae"] @ decoder["loadings"].T + decoder["intercept"] + batch @ decoder["covariate_effects"].T
    rho, is_high = softmax(eta, axis=1), (adata.obs["group"] == "high").to_numpy()
    frame = frame_of(adata).loc["high"].loc[list(adata.uns["ldvae"]["genes"])]
    np.testing.assert_allclose(frame["proportion"], rho[is_high].mean(0), rtol=1e-4)
    np.testing.assert_allclose(frame["proportion_reference"], rho[~is_high].mean(0), rtol=1e-4)
    log2 = np.log2(rho + 0.1 / np.median(adata.obs["ldvae_library"]))
    np.testing.assert_allclose(frame["logfoldchanges"], log2[is_high].mean(0) - log2[~is_high].mean(0), atol=1e-4)


@pytest.mark.parametrize("missing", [np.nan, None], ids=["nan", "None"])
def test_cells_without_a_group_are_left_out(missing: float | None, adata: ad.AnnData) -> None:
    known = np.arange(N_OBS) % 5 > 0
    adata.obs["group"] = adata.obs["group"].astype(object).where(known, missing)
    # Not even their covariates are asked for.
    adata.obs["batch"] = adata.obs["batch"].astype(object).where(known, "elsewhere")
    pd.testing.assert_frame_equal(frame_of(adata), frame_of(adata[known].copy()), check_exact=True)


def test_view_becomes_actual_and_leaves_its_parent(adata: ad.AnnData, unchanged: Callable[..., Any]) -> None:
    view = adata[10:90, 5:]
    expected = frame_of(view.copy())
    with unchanged(adata):
        compare(view)
    assert not view.is_view
    pd.testing.assert_frame_equal(get.differential_expression(view), expected, check_exact=True)


def strings(column: pd.Series) -> pd.Series:
    return column.astype(str).astype(object)


def unused_categories(column: pd.Series) -> pd.Series:
    return column.cat.add_categories("nobody").cat.reorder_categories(["nobody", "high", "low", "middle"])


def numbers(column: pd.Series) -> pd.Series:
    return column.map({"high": 1, "low": 2, "middle": 3}).astype(int)


@pytest.mark.parametrize(
    ("as_other", "names"),
    [
        pytest.param(strings, ["high", "low", "middle"], id="strings"),
        pytest.param(unused_categories, ["high", "low", "middle"], id="unused-categories"),
        pytest.param(numbers, ["1", "2", "3"], id="numbers"),
    ],
)
def test_columns_of_groups(as_other: Callable[..., pd.Series], names: list[str], adata: ad.AnnData) -> None:
    expected = frame_of(adata)
    adata.obs["group"] = as_other(adata.obs["group"])
    frame = frame_of(adata)
    assert list(frame.index.unique("group")) == names
    np.testing.assert_array_equal(frame, expected)


def as_it_is(adata: ad.AnnData) -> ad.AnnData:
    return adata


def obs(key: str, value: object) -> Change:
    def change(adata: ad.AnnData) -> ad.AnnData:
        adata.obs[key] = value
        return adata

    return change


def not_fitted(adata: ad.AnnData) -> ad.AnnData:
    del adata.uns["ldvae"]
    return adata


def without(attribute: str, key: str) -> Change:
    def change(adata: ad.AnnData) -> ad.AnnData:
        del getattr(adata, attribute)[key]
        return adata

    return change


def test_groups_that_are_true_or_false(compared: ad.AnnData) -> None:
    adata = compared.copy()
    adata.obs["is_high"] = (adata.obs["group"] == "high").to_numpy()
    results = []
    for yes, no in ((True, False), (np.True_, np.False_), ("True", "False")):
        tl.differential_expression(adata, "is_high", groups=[yes], reference=no, progress=False)
        results.append(get.differential_expression(adata))
    for result in results[:2]:
        pd.testing.assert_frame_equal(result, results[2])


def without_batch(adata: ad.AnnData) -> ad.AnnData:
    tl.ldvae(adata, 2, max_epochs=1, progress=False)
    return adata


def concatenated(adata: ad.AnnData) -> ad.AnnData:
    """With cells that the fit has not seen."""
    others = sc_ldvae.datasets.simulate(5, N_VARS, 2, n_batches=2, rng=1)
    others.obs_names = [f"other{i}" for i in range(5)]
    others.obs["group"] = "low"
    return ad.concat([adata, others], join="outer", merge="first", uns_merge="first")


REFUSALS = [
    pytest.param(
        as_it_is,
        {"groupby": "nothing"},
        ValueError,
        "^groupby='nothing' is not a column of obs. Columns: 'true_library', 'batch', 'group'",
        id="unknown-column",
    ),
    pytest.param(
        as_it_is,
        {"groups": ["high", "none"]},
        ValueError,
        r"^groups: 'none' is not a group of obs\['group'\]\. Groups: 'high', 'low', 'middle'",
        id="unknown-group",
    ),
    pytest.param(
        as_it_is,
        {"groups": ["high", "high"]},
        ValueError,
        r"^groups holds 'high' more than once\. Name each once",
        id="group-twice",
    ),
    pytest.param(
        as_it_is,
        {"reference": "none"},
        ValueError,
        r"^reference: 'none' is not a group of obs\['group'\]",
        id="unknown-reference",
    ),
    pytest.param(
        as_it_is, {"groups": "high"}, TypeError, r"^groups must be 'all' or a list of groups: \['high'\]", id="string"
    ),
    pytest.param(
        as_it_is,
        {"groupby": "lone"},
        ValueError,
        r"^'one' has 1 cells in obs\['lone'\], too few to compare\. Leave it out",
        id="group-of-one",
    ),
    pytest.param(
        as_it_is,
        {"groupby": "lone", "groups": ["some"], "reference": "one"},
        ValueError,
        r"^'one' has 1 cells in obs\['lone'\], too few",
        id="reference-of-one",
    ),
    pytest.param(
        obs("group", ["a"] * (N_OBS - 1) + ["b"]),
        {"groups": ["a"]},
        ValueError,
        r"^'rest' has 1 cells in obs\['group'\], too few",
        id="rest-of-one",
    ),
    pytest.param(
        obs("group", "a"), {}, ValueError, r"^groupby: obs\['group'\] has 1 groups, but a.* needs two", id="one-group"
    ),
    pytest.param(
        obs("group", np.nan), {}, ValueError, r"^groupby: obs\['group'\] has 0 groups", id="all-cells-without-a-group"
    ),
    pytest.param(
        as_it_is,
        {"groups": ["low"], "reference": "low"},
        ValueError,
        "^groups names no group beside the reference 'low'",
        id="reference-alone",
    ),
    pytest.param(as_it_is, {"groups": []}, ValueError, "^groups names no group", id="no-groups"),
    pytest.param(
        as_it_is, {"mode": "changes"}, ValueError, "^mode='changes' is unknown. Choose 'change' or 'vanilla'", id="mode"
    ),
    *(
        pytest.param(
            as_it_is,
            {name: number},
            ValueError,
            f"^{name} must be above 0, but is {number}",
            id=f"{name}-{number}",
        )
        for name in ("delta", "pseudocount")
        for number in (0, -0.1, np.nan, np.inf)
    ),
    *(
        pytest.param(as_it_is, {"fdr": fdr}, ValueError, f"^fdr must be between 0 and 1, but is {fdr}", id=f"fdr-{fdr}")
        for fdr in (0, 1, -0.1, 5, np.nan)
    ),
    *(
        pytest.param(as_it_is, {"key_added": key}, ValueError, f"^key_added.*'{key}'.*'/'", id=f"key_added-{key!r}")
        for key in ("a/b", "")
    ),
    pytest.param(
        without_batch,
        {"batch_correction": True},
        ValueError,
        "^batch_correction=True was given, but the fit has no batch. Leave it out, or fit with batch_key",
        id="no-batch",
    ),
    pytest.param(not_fitted, {}, ValueError, r"^uns\['ldvae'\] holds no fit\. Fit one.*Fits here: none", id="no-fit"),
    pytest.param(
        as_it_is, {"key": "foo"}, ValueError, r"^uns\['foo'\] holds no fit\..*Fits here: 'ldvae'", id="unknown-key"
    ),
    *(
        pytest.param(without(attribute, key), {}, ValueError, rf"{attribute}\['{key}'\] is gone", id=f"no-{key}")
        for attribute, key in (("obsm", "X_ldvae"), ("obsm", "X_ldvae_variance"), ("obs", "ldvae_library"))
    ),
    pytest.param(
        obs("batch", "batch7"),
        {},
        ValueError,
        r"^obs\['batch'\] has the level 'batch7', which the fit has not seen.*'batch0', 'batch1'",
        id="unseen-batch",
    ),
    pytest.param(
        without("obs", "batch"), {}, ValueError, "^The fit knows each cell's 'batch', but obs has no", id="batch-gone"
    ),
    pytest.param(
        obs("ldvae_library", np.nan), {}, ValueError, "^120 of 120 cells have no latent .*'cell0'", id="no-library"
    ),
    pytest.param(
        concatenated, {}, ValueError, r"^5 of 125 cells have no latent \(for example 'other0'\).*project", id="concat"
    ),
    pytest.param(as_it_is, {"modality": "rna"}, ValueError, "^modality='rna' was given, but data is an", id="modality"),
]


@pytest.mark.parametrize("copy", [False, True], ids=["in-place", "copy"])
@pytest.mark.parametrize(("change", "options", "error", "sentence"), REFUSALS)
def test_refused_with_a_sentence_and_nothing_changed(
    change: Change,
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
    copy: bool,
    adata: ad.AnnData,
    unchanged: Callable[..., Any],
) -> None:
    adata = change(adata)
    with unchanged(adata), pytest.raises(error, match=sentence):
        compare(adata, copy=copy, **options)


def test_refusal_keeps_an_earlier_result(adata: ad.AnnData, unchanged: Callable[..., Any]) -> None:
    compare(adata)
    with unchanged(adata), pytest.raises(ValueError, match=r"^delta"):
        compare(adata, delta=0)


def test_batch_that_is_gone_is_not_needed_for_the_mean_over_batches(adata: ad.AnnData, sound: ad.AnnData) -> None:
    expected = frame_of(sound, batch_correction=True)
    del adata.obs["batch"]
    pd.testing.assert_frame_equal(frame_of(adata, batch_correction=True), expected, check_exact=True)
