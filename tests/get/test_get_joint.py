"""Frames of a fit of several modalities: against the arrays that it left, and against those of one modality."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from sc_ldvae import get, record
from sc_ldvae.inputs import rotation_of
from sc_ldvae.record._joint import sealed_joint
from sc_ldvae.record._sealed import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

NAMES = ["ldvae1", "ldvae2", "ldvae3"]
MODALITIES = ["rna", "prot", "$tf$ of $x$"]
FITTED = np.arange(40) % 4 > 0
each_modality = pytest.mark.parametrize("modality", MODALITIES)


def genes_of(mdata: MuData, modality: str) -> pd.Index:
    names = mdata[modality].var_names
    return names[FITTED] if modality == "rna" else names


def varm_of(mdata: MuData, name: str) -> np.ndarray:
    """Of the fitted genes of all modalities."""
    return np.vstack([mdata[one].varm[name][FITTED if one == "rna" else slice(None)] for one in MODALITIES])


def without_second(joint: MuData) -> MuData:
    """The same fit, but that its second factor has vanished."""
    mdata, stored = joint.copy(), record.read_joint(joint)
    views = {}
    for name, view in stored.views.items():
        content = deepcopy(dict(view.content))
        content["decoder"]["loadings"][:, 1] = 0
        views[name] = sealed(content)
    mdata.uns["ldvae"] = sealed_joint(dict(joint.uns["ldvae"]), stored.keys, views)
    return mdata


@pytest.mark.parametrize(("getter", "name"), [(get.loadings, "ldvae_loadings"), (get.loadings_se, "ldvae_loadings_se")])
def test_loadings_of_all_modalities(getter: Callable[..., pd.DataFrame], name: str, joint: MuData) -> None:
    frame = getter(joint)
    assert frame.index.names == ["modality", "gene"]
    assert frame.index.tolist() == [(one, gene) for one in MODALITIES for gene in genes_of(joint, one)]
    assert frame.columns.tolist() == NAMES
    np.testing.assert_array_equal(frame.to_numpy(), varm_of(joint, name), strict=True)
    assert getter(joint, [3, 1]).equals(frame[["ldvae3", "ldvae1"]])


def test_a_standard_deviation_is_that_of_all_cells(joint: MuData) -> None:
    sd = joint.obsm["X_ldvae"].std(axis=0, dtype=np.float64)
    expected = varm_of(joint, "ldvae_loadings") * sd / np.log(2)
    np.testing.assert_allclose(get.loadings(joint, per="sd", log2=True), expected, rtol=1e-6)


@pytest.mark.parametrize("rotation", ["varimax", "promax", "principal", "modality"])
def test_modalities_turn_together(rotation: Any, joint: MuData) -> None:
    matrix = rotation_of(joint, record.read_joint(joint), rotation, "rotation")
    frame = get.loadings(joint, rotation=rotation)
    expected = varm_of(joint, "ldvae_loadings") @ np.linalg.inv(matrix).T
    np.testing.assert_allclose(frame, expected, rtol=1e-5, atol=1e-6)
    errors = get.loadings_se(joint, rotation=rotation)
    for modality in MODALITIES:
        named = {"rotation": rotation, "modality": modality}
        pd.testing.assert_frame_equal(get.loadings(joint, **named), frame.loc[modality], check_names=False)
        pd.testing.assert_frame_equal(get.loadings_se(joint, **named), errors.loc[modality], check_names=False)


def test_a_modality_alone_turns_alone(joint: MuData) -> None:
    own = get.loadings(joint["prot"], rotation="varimax")
    assert not np.allclose(own, get.loadings(joint, rotation="varimax", modality="prot"))
    with pytest.raises(ValueError, match=r"^rotation='modality' needs a joint fit"):
        get.loadings(joint["prot"], rotation="modality")


def test_so_does_one_that_was_fitted_again(joint: MuData, reseal: Callable[[AnnData], None]) -> None:
    mdata = joint.copy()
    mdata["rna"].uns["ldvae"]["decoder"]["loadings"][:, 0] *= 2
    reseal(mdata["rna"])
    frame = get.loadings(mdata, rotation="varimax", modality="rna")
    pd.testing.assert_frame_equal(frame, get.loadings(mdata["rna"], rotation="varimax"))


def test_modalities_that_are_gone_are_left_out(joint: MuData) -> None:
    mdata = joint.copy()
    del mdata.mod["prot"]
    assert get.loadings(mdata).index.unique("modality").tolist() == ["rna", "$tf$ of $x$"]
    for name in ("rna", "$tf$ of $x$"):
        del mdata.mod[name]
    with pytest.raises(ValueError, match=r"^data has none of the modalities of the fit: 'rna', 'prot', "):
        get.loadings(mdata)


@each_modality
@pytest.mark.parametrize("by", ["bound", "loading"])
def test_top_genes_are_those_of_each_modality(modality: str, by: Any, joint: MuData) -> None:
    table = get.top_genes(joint, 3, by=by)
    assert table.index.names == ["factor", "modality", "gene"]
    order = table.index.droplevel("gene").unique().tolist()
    assert order == [(factor, one) for factor in NAMES for one in MODALITIES]
    own = get.top_genes(joint, 3, by=by, modality=modality)
    pd.testing.assert_frame_equal(table.xs(modality, level="modality"), own)


def test_factors_are_those_of_all_cells(joint: MuData) -> None:
    frame = get.factors(joint)
    latent, variance = (joint.obsm[name].astype(np.float64) for name in ("X_ldvae", "X_ldvae_variance"))
    np.testing.assert_allclose(frame["mean"], latent.mean(0))
    np.testing.assert_allclose(frame["sd"], latent.std(0))
    np.testing.assert_allclose(frame["posterior_sd"], np.sqrt(variance.mean(0)))
    np.testing.assert_array_equal(frame["explained_deviance"], joint.uns["ldvae"]["explained_deviance"])
    assert frame.attrs["total_explained_deviance"] == joint.uns["ldvae"]["total_explained_deviance"]
    assert not frame["vanished"].any()


def test_modalities(joint: MuData) -> None:
    frame = get.modalities(joint)
    assert (frame.index.tolist(), frame.index.name) == (NAMES, "factor")
    assert (frame.columns.tolist(), frame.columns.name) == (MODALITIES, "modality")
    for modality in MODALITIES:
        stored = joint[modality].uns["ldvae"]
        np.testing.assert_array_equal(frame[modality], stored["explained_deviance"])
        assert frame.attrs["total"][modality] == stored["total_explained_deviance"]


def test_vanished_factors_are_left_out(joint: MuData) -> None:
    mdata, left = without_second(joint), ["ldvae1", "ldvae3"]
    assert get.factors(mdata)["vanished"].tolist() == [False, True, False]
    assert get.modalities(mdata).equals(get.modalities(joint).loc[left])
    assert get.top_genes(mdata).index.unique("factor").tolist() == left
    with pytest.raises(ValueError, match=r"^factors holds 'ldvae2', which has vanished"):
        get.top_genes(mdata, factors=[2])


def test_history_is_the_one_of_all(joint: MuData) -> None:
    frame = get.history(joint)
    pd.testing.assert_frame_equal(frame, get.history(joint, modality="prot"))
    assert frame.attrs == get.history(joint["rna"]).attrs


def test_covariate_effects(joint: MuData) -> None:
    frame = get.covariate_effects(joint)
    assert frame.columns.tolist() == [("batch", "one"), ("batch", "two")]
    assert frame.index.names == ["modality", "gene"]
    for modality in MODALITIES:
        own = get.covariate_effects(joint, modality=modality)
        pd.testing.assert_frame_equal(frame.loc[modality], own, check_names=False)


def test_explained_deviance(joint_assessed: MuData) -> None:
    frame, result = get.explained_deviance(joint_assessed), joint_assessed.uns["ldvae_explained_deviance"]
    np.testing.assert_array_equal(frame, result["share"].T)
    assert (frame.index.tolist(), frame.columns.tolist()) == (NAMES, MODALITIES)
    assert frame.attrs["total"] == {"rna": 0.4, "prot": 0.8, "$tf$ of $x$": 0.2}
    assert frame.attrs["n_cells"] == {"rna": 12, "prot": 11, "$tf$ of $x$": 9}
    assert frame.attrs["base"] == {"rna": 0.1, "prot": 0.0, "$tf$ of $x$": -0.1}
    assert (frame.attrs["cells"], frame.attrs["thinned"]) == ("held_out", 0.25)
    with pytest.raises(ValueError, match=r"^by_group=True was given, but groups of cells are measured in one modality"):
        get.explained_deviance(joint_assessed, by_group=True)


def test_stability(joint_assessed: MuData) -> None:
    frame, result = get.stability(joint_assessed), joint_assessed.uns["ldvae_stability"]
    np.testing.assert_array_equal(frame["score"], result["score"])
    np.testing.assert_array_equal(frame["replication"], result["replication"].mean(0))
    consensus = get.consensus_loadings(joint_assessed)
    assert consensus.index.equals(get.loadings(joint_assessed).index)
    assert consensus.index.names == ["modality", "gene"]
    np.testing.assert_array_equal(consensus, result["consensus"])
    assert consensus.attrs == frame.attrs == {"n_seeds": 2, "subsample": "halves", "rotation": ""}


def test_numbers_of_factors(joint_assessed: MuData) -> None:
    frame = get.n_latent(joint_assessed)
    assert frame.index.tolist() == [2, 4]
    np.testing.assert_array_equal(frame["elbo"], joint_assessed.uns["ldvae_n_latent"]["elbo"])
    assert frame.attrs["recommended"] == 4


def test_associations(joint_assessed: MuData) -> None:
    frame = get.associations(joint_assessed, [2])
    assert set(frame.loc["ldvae2"].index) == {"batch", "age"}
    factor = joint_assessed.obsm["X_ldvae"][:, 1]
    expected = pd.Series(factor).corr(joint_assessed.obs["age"].reset_index(drop=True), method="spearman")
    assert frame.loc[("ldvae2", "age"), "statistic"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("getter", "tool"),
    [
        (get.explained_deviance, "explained_deviance"),
        (get.stability, "stability"),
        (get.consensus_loadings, "stability"),
        (get.n_latent, "select_n_latent"),
        (get.associations, "associate"),
    ],
)
def test_missing_results_are_refused(getter: Callable[..., Any], tool: str, joint: MuData) -> None:
    with pytest.raises(ValueError, match=rf"holds no result of sc_ldvae\.tl\.{tool}\. "):
        getter(joint)


@pytest.mark.parametrize(
    "getter",
    [
        get.modalities,
        get.loadings,
        get.factors,
        get.history,
        get.covariate_effects,
        get.stability,
        get.explained_deviance,
        partial(get.loadings, rotation="modality"),
    ],
)
def test_unknown_joint_fits_are_refused(getter: Callable[..., Any], joint: MuData) -> None:
    sentence = r"^uns\['foo'\] of the MuData holds no joint fit\. .*Joint fits here: 'ldvae'\.$"
    with pytest.raises(ValueError, match=sentence):
        getter(joint, key="foo")


def test_modalities_need_several(fitted: AnnData, joint: MuData) -> None:
    with pytest.raises(TypeError, match=r"^data is a AnnData, but a fit of several modalities stands in a MuData"):
        get.modalities(fitted)
    mdata = joint.copy()
    del mdata.uns["ldvae"]
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] of the MuData holds no joint fit"):
        get.modalities(mdata)
    with pytest.raises(ValueError, match=r"^data is a MuData, .* Pass modality, one of 'rna', 'prot', "):
        get.loadings(mdata)


@pytest.mark.parametrize("getter", [get.latent_library_size, get.likelihood_parameters, get.enrichment])
def test_others_are_of_one_modality(getter: Callable[..., Any], joint: MuData) -> None:
    with pytest.raises(ValueError, match=r"^data is a MuData, .* Pass modality, one of 'rna'"):
        getter(joint)
