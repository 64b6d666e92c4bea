"""Associations of factors with columns of obs: against SciPy, and what is read, stored and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACTORS = ["ldvae1", "ldvae2", "ldvae3"]


@pytest.fixture
def adata(fitted: ad.AnnData) -> ad.AnnData:
    """With columns of every kind, of which some follow the first factor."""
    adata = fitted.copy()
    n_obs, rng = adata.n_obs, np.random.default_rng(0)
    first = adata.obsm["X_ldvae"][:, 0]
    adata.obs["third"] = pd.Categorical(np.array(["low", "middle", "high"])[np.argsort(np.argsort(first)) * 3 // n_obs])
    adata.obs["text"] = rng.choice(["x", "y", "z"], n_obs)
    adata.obs["flag"] = first > 0
    adata.obs["age"] = rng.integers(20, 25, n_obs)
    adata.obs["dose"] = -first.astype(np.float64)
    adata.obs.loc[adata.obs_names[::7], ["text", "dose"]] = None
    adata.obs["constant"] = 1.0
    adata.obs["alone"] = "one"
    adata.obs["id"] = [f"cell {i}" for i in range(n_obs)]
    adata.obs["day"] = pd.Timestamp("2020-01-01")
    return adata


@pytest.fixture
def associated(adata: ad.AnnData) -> ad.AnnData:
    tl.associate(adata, ["third", "text", "flag", "age", "dose", "ldvae_library"])
    return adata


def stored(adata: ad.AnnData, name: str = "ldvae_associations") -> pd.DataFrame:
    return pd.DataFrame(dict(adata.uns[name])).set_index(["factor", "key"])


def test_columns_are_chosen_by_kind_and_number_of_levels(
    adata: ad.AnnData, fit_quickly: Callable[..., ad.AnnData]
) -> None:
    fit_quickly(adata, key_added="other")
    # What the fits and scores by them left in obs is not what is known of the cells.
    for score in (tl.elbo, tl.reconstruction_error, tl.marginal_log_likelihood):
        for key in ("ldvae", "other"):
            score(adata, n_samples=2, key=key, key_added=f"{score.__name__} by {key}", progress=False)
    adata.obs["many"] = [f"level {i % 51}" for i in range(adata.n_obs)]
    tl.associate(adata)
    kinds = stored(adata).loc["ldvae1", "kind"].to_dict()
    assert kinds == {
        "true_library": "continuous",
        "batch": "categorical",
        "covariate1": "continuous",
        "third": "categorical",
        "text": "categorical",
        "flag": "categorical",
        "age": "continuous",
        "dose": "continuous",
    }
    # Whoever names them gets them.
    named = {"many": "categorical", "ldvae_held_out": "categorical", "elbo by other": "continuous"}
    tl.associate(adata, list(named))
    assert stored(adata).loc["ldvae1", "kind"].to_dict() == named


def test_scores_are_known_after_a_file(adata: ad.AnnData, tmp_path: Path) -> None:
    del adata.obs["day"]
    tl.elbo(adata, n_samples=2, key_added="score", progress=False)
    adata.write_h5ad(tmp_path / "scored.h5ad")
    again = ad.read_h5ad(tmp_path / "scored.h5ad")
    tl.associate(again)
    assert "score" not in stored(again).loc["ldvae1"].index


def test_a_fit_that_is_called_like_the_note_of_scores_is_kept(
    adata: ad.AnnData, fit_quickly: Callable[..., ad.AnnData]
) -> None:
    fit_quickly(adata, key_added="ldvae_scores")
    tl.elbo(adata, n_samples=2, key_added="score", progress=False)
    tl.associate(adata, ["batch"], key="ldvae_scores")


@pytest.mark.parametrize("level", ["unlabelled", "Unlabeled", "unknown", "Unassigned", "NOT_assigned", "nan", "NA", ""])
def test_levels_that_say_nothing_count_and_are_told(
    adata: ad.AnnData, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = adata.obs["third"].astype(str).to_numpy()
    some = np.arange(adata.n_obs) % 4 == 0
    adata.obs["type"] = pd.Categorical(np.where(some, level, known))
    adata.obs["whole"] = known
    tl.associate(adata, ["type", "whole", "age"])
    table = stored(adata).loc["ldvae1"]
    assert table["unknown_share"].to_dict() == {"type": 0.25, "whole": 0.0, "age": 0.0}
    assert get.associations(adata)["unknown_share"]["ldvae1"]["type"] == 0.25
    (said,) = caplog.messages
    assert said.startswith(f"obs['type']: {level!r} (25.0 % of the cells) counts as a level.")
    # What it says to do: the factor follows the levels that are known closely, which those cells had hidden.
    obs = adata.obs
    assert said.endswith(f"To leave these cells out, obs['type'] = obs['type'].mask(obs['type'].isin([{level!r}])).")
    obs["type"] = obs["type"].mask(obs["type"].isin([level]))
    caplog.clear()
    tl.associate(adata, ["type"])
    assert not caplog.messages
    assert stored(adata).loc[("ldvae1", "type"), "statistic"] > table.loc["type", "statistic"] + 0.05


@pytest.mark.parametrize("level", ["none", "unknown cell type A", "Nanog", "N", "naive"])
def test_other_levels_are_not_called_unknown(adata: ad.AnnData, level: str, caplog: pytest.LogCaptureFixture) -> None:
    adata.obs["type"] = np.where(np.arange(adata.n_obs) % 4 == 0, level, "b")
    tl.associate(adata, ["type"])
    assert not caplog.messages
    assert (stored(adata)["unknown_share"] == 0).all()


def test_results_of_older_versions_do_not_tell_of_unknown_levels(associated: ad.AnnData) -> None:
    table = dict(associated.uns["ldvae_associations"])
    now = get.associations(associated)
    for name in ("unknown_share", "checksum"):
        del table[name]
    associated.uns["ldvae_associations"] = table
    before = get.associations(associated)
    assert before["unknown_share"].isna().all()
    pd.testing.assert_frame_equal(before.drop(columns="unknown_share"), now.drop(columns="unknown_share"))


@pytest.mark.parametrize("key", ["third", "text", "flag"])
def test_eta_squared_is_that_of_scipys_analysis_of_variance(associated: ad.AnnData, key: str) -> None:
    known = associated.obs[key].notna().to_numpy()
    column = associated.obs[key][known].astype(str).to_numpy()
    for k, factor in enumerate(FACTORS):
        latent = associated.obsm["X_ldvae"][known, k].astype(np.float64)
        groups = {level: latent[column == level] for level in np.unique(column)}
        f, n_groups = stats.f_oneway(*groups.values()).statistic, len(groups)
        odds = f * (n_groups - 1) / (len(latent) - n_groups)
        row = stored(associated).loc[(factor, key)]
        assert row["statistic"] == pytest.approx(odds / (1 + odds), rel=1e-9)
        means = {level: values.mean() for level, values in groups.items()}
        assert (row["highest"], row["lowest"]) == (max(means, key=means.get), min(means, key=means.get))


@pytest.mark.parametrize("key", ["age", "dose", "ldvae_library"])
def test_correlation_is_scipys_spearman(associated: ad.AnnData, key: str) -> None:
    for k, factor in enumerate(FACTORS):
        expected = stats.spearmanr(associated.obsm["X_ldvae"][:, k], associated.obs[key], nan_policy="omit").statistic
        row = stored(associated).loc[(factor, key)]
        assert row["statistic"] == pytest.approx(expected, rel=1e-9)
        assert row["highest"] == row["lowest"] == ""
    if key == "dose":
        assert stored(associated).loc[("ldvae1", key), "statistic"] == pytest.approx(-1)


def test_constant_factor_goes_with_nothing(adata: ad.AnnData) -> None:
    adata.obsm["X_ldvae"][:, 1] = 0.5
    tl.associate(adata)
    statistic = stored(adata)["statistic"]
    assert (statistic.loc["ldvae2"] == 0).all()
    assert (statistic.loc["ldvae1"] != 0).all()


@pytest.mark.parametrize(
    ("values", "same_as"),
    [
        pytest.param(
            pd.array([True, False, None, True] * 50, dtype="boolean"), ["yes", "no", None, "yes"], id="boolean"
        ),
        pytest.param(pd.Categorical([1, 2, None, 1] * 50, [3, 2, 1]), ["1", "2", None, "1"], id="unused-level"),
        pytest.param(pd.array([1, 2, None, 5] * 50, dtype="Int64"), [1.0, 2.0, np.nan, 5.0], id="nullable-integer"),
    ],
)
def test_missing_values_are_left_out_whatever_the_type(adata: ad.AnnData, values: Any, same_as: list[Any]) -> None:
    adata.obs["given"] = values
    adata.obs["plain"] = pd.Series(same_as * 50, index=adata.obs_names)
    tl.associate(adata, ["given", "plain"])
    table = stored(adata)
    for factor in FACTORS:
        given, plain = (table.loc[(factor, key), "statistic"] for key in ("given", "plain"))
        assert plain != 0
        # Levels in another order: sums in another order.
        assert given == pytest.approx(plain, rel=1e-12)


def test_frame_has_the_strongest_first(associated: ad.AnnData) -> None:
    frame = get.associations(associated)
    assert frame.columns.tolist() == ["kind", "statistic", "strength", "highest", "lowest", "unknown_share"]
    assert frame.index.names == ["factor", "key"]
    table = stored(associated)
    statistic = table["statistic"].loc[frame.index]
    expected = np.where(frame["kind"] == "continuous", statistic.abs(), np.sqrt(statistic.abs()))
    np.testing.assert_allclose(frame["strength"], expected, rtol=1e-12)
    assert frame.index.get_level_values("factor").unique().tolist() == FACTORS
    for factor in FACTORS:
        assert frame.loc[factor, "strength"].is_monotonic_decreasing
    assert frame.index[0] == ("ldvae1", "dose")


def test_frame_holds_the_factors_asked_for_in_their_order(associated: ad.AnnData) -> None:
    frame = get.associations(associated, [3, "ldvae1"])
    assert frame.index.get_level_values("factor").unique().tolist() == ["ldvae3", "ldvae1"]
    pd.testing.assert_frame_equal(frame.loc[["ldvae1"]], get.associations(associated, [1]))


def test_ten_factors_keep_their_order(adata: ad.AnnData, fit_quickly: Callable[..., ad.AnnData]) -> None:
    fit_quickly(adata, 11)
    tl.associate(adata, ["batch"])
    assert get.associations(adata).index.get_level_values("factor").tolist() == [f"ldvae{k}" for k in range(1, 12)]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_result_survives_a_file(associated: ad.AnnData, tmp_path: Path, suffix: str) -> None:
    del associated.obs["day"]
    path = tmp_path / f"associated.{suffix}"
    getattr(associated, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(get.associations(again), get.associations(associated), check_exact=True)


def test_result_stands_beside_its_fit(adata: ad.AnnData, fit_quickly: Callable[..., ad.AnnData]) -> None:
    fit_quickly(adata, key_added="foo")
    before = set(adata.uns)
    tl.associate(adata, ["batch"], key="foo")
    tl.associate(adata, ["batch"], key="foo", key_added="bar")
    assert set(adata.uns) - before == {"foo_associations", "bar"}
    pd.testing.assert_frame_equal(
        get.associations(adata, key="foo"), get.associations(adata, key="foo", key_added="bar")
    )
    assert get.associations(adata, [1], key="foo").index.tolist() == [("foo1", "batch")]


def test_copy_leaves_the_object_as_it_is(
    adata: ad.AnnData, unchanged: Callable[..., Any], assert_same: Callable[..., None]
) -> None:
    with unchanged(adata):
        copied = tl.associate(adata, copy=True)
    assert tl.associate(adata) is None
    assert_same(copied, adata)


def test_modality_of_a_mudata(adata: ad.AnnData) -> None:
    data = mudata.MuData({"rna": adata.copy()})
    tl.associate(data, ["third"], modality="rna")
    tl.associate(adata, ["third"])
    pd.testing.assert_frame_equal(get.associations(data, modality="rna"), get.associations(adata))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"keys": ["donor"]}, "^keys='donor' is not a column of obs. Columns: 'true_lib", id="key"),
        pytest.param({"keys": ["constant"]}, r"^keys: obs\['constant'\] has one value", id="constant"),
        pytest.param({"keys": ["alone"]}, r"^keys: obs\['alone'\] has 1 levels", id="one-level"),
        pytest.param({"keys": ["id"]}, r"^keys: obs\['id'\] has as many levels as cells", id="level-per-cell"),
        pytest.param({"keys": ["day"]}, r"^keys: obs\['day'\] is datetime64.*neither categorical nor num", id="date"),
        pytest.param({"keys": []}, r"^keys=\[\] leaves no column", id="no-key"),
        pytest.param({"key": "foo"}, r"^uns\['foo'\] holds no fit", id="fit"),
        pytest.param({"key_added": "a/b"}, "^key_added='a/b' can't name an entry", id="slash"),
        pytest.param({"key_added": "ldvae"}, "^key_added='ldvae' would replace the fit", id="fit-in-the-way"),
        pytest.param({"modality": "rna"}, "^modality='rna' was given, but data is an AnnData", id="modality"),
    ],
)
def test_bad_input_is_refused(
    adata: ad.AnnData, unchanged: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with unchanged(adata), pytest.raises(ValueError, match=message):
        tl.associate(adata, **arguments)


def test_what_is_no_level_is_refused_by_the_name_of_its_argument(adata: ad.AnnData) -> None:
    # No file takes such a column.
    adata.obs["pair"] = [[i % 2] for i in range(adata.n_obs)]
    with pytest.raises(ValueError, match=r"^keys: obs\['pair'\] holds \[0\], which can't be a level"):
        tl.associate(adata, ["pair"])


def test_one_key_must_be_in_a_list(adata: ad.AnnData) -> None:
    sentence = r"^keys must be a list of text or None, but is 'batch'\. Give a list: \['batch'\]\."
    with pytest.raises(TypeError, match=sentence):
        tl.associate(adata, "batch")


def test_cells_without_a_latent_are_refused(adata: ad.AnnData) -> None:
    adata.obsm["X_ldvae"][3] = np.nan
    with pytest.raises(ValueError, match=r"^1 of 200 cells have no latent \(for example"):
        tl.associate(adata)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"key_added": "foo"}, r"^uns\['foo'\] holds no result of sc_ldvae.tl.associate", id="result"),
        pytest.param({"key": "foo"}, r"^uns\['foo'\] holds no fit", id="fit"),
        pytest.param({"factors": [4]}, "^factors holds 4, but factors are 1 to 3", id="factor"),
    ],
)
def test_frame_of_what_is_not_there(associated: ad.AnnData, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get.associations(associated, **arguments)


@pytest.fixture
def annotated(joint: mudata.MuData) -> mudata.MuData:
    """With a column of a modality, of which the MuData knows nothing."""
    mdata = joint.copy()
    mdata["prot"].obs["quality"] = np.linspace(0, 1, mdata["prot"].n_obs) ** 2
    return mdata


@pytest.mark.parametrize("modality", [None, "rna"])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_array], ids=["dense", "csr", "csc"])
def test_columns_and_features_of_other_modalities(
    make: Callable[[Any], Any], modality: str | None, annotated: mudata.MuData
) -> None:
    prot = annotated["prot"]
    counts = prot.X.toarray() if sparse.issparse(prot.X) else np.asarray(prot.X)
    prot.X = make(counts)
    tl.associate(annotated, ["prot:prot3", "prot:quality", "age"], modality=modality)
    shown = annotated if modality is None else annotated[modality]
    frame = get.associations(annotated, modality=modality)
    assert set(frame.index.get_level_values("key")) == {"prot:prot3", "prot:quality", "age"}
    # Cells that lack the modality are left out.
    both = shown.obs_names.intersection(prot.obs_names)
    latent = pd.DataFrame(shown.obsm["X_ldvae"], shown.obs_names).loc[both]
    for name, values in {"prot:prot3": counts[:, 3], "prot:quality": prot.obs["quality"].to_numpy()}.items():
        own = pd.Series(values, prot.obs_names)[both]
        for k in range(3):
            expected = stats.spearmanr(latent[k], own).statistic
            assert frame.loc[(f"ldvae{k + 1}", name), "statistic"] == pytest.approx(expected, rel=1e-6)


def test_what_the_mudata_knows_comes_first(annotated: mudata.MuData) -> None:
    annotated.obs["prot:prot3"] = np.arange(120)
    tl.associate(annotated, ["prot:prot3", "age"])
    frame = get.associations(annotated)
    # The other column rises with the cells, too.
    by_column = [frame.xs(name, level="key")["statistic"].tolist() for name in ("prot:prot3", "age")]
    assert by_column[0] == pytest.approx(by_column[1])


@pytest.mark.parametrize("key", ["prot:gone", "gone:prot3", "prot3", "prot:"])
def test_unknown_names_of_other_modalities_are_refused(key: str, annotated: mudata.MuData) -> None:
    with pytest.raises(ValueError, match=rf"^In the MuData: keys='{key}' is not a column of obs"):
        tl.associate(annotated, [key])


def test_all_columns_are_still_those_of_the_object(annotated: mudata.MuData) -> None:
    tl.associate(annotated)
    assert set(get.associations(annotated).index.get_level_values("key")) == {"batch", "age"}
