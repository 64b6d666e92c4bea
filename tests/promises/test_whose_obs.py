"""Sentences about obs say whose they mean: that of a modality, or the MuData's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest

from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

QUICK: dict[str, Any] = {"max_epochs": 1, "progress": False}
# What is asked of the modality, where it is not in the other one, or in none.
OF_ONE: dict[str, tuple[Callable[[MuData], object], str]] = {
    "batch": (lambda m: tl.ldvae(m, 2, modality="rna", batch_key="gone", **QUICK), "batch_key='gone' is not a column"),
    "size": (lambda m: tl.ldvae(m, 2, modality="rna", size_factor_key="gone", **QUICK), "size_factor_key='gone' is"),
    "text": (lambda m: tl.ldvae(m, 2, modality="rna", continuous_covariate_keys=["batch"], **QUICK), "continuous_cov"),
    "split": (lambda m: tl.ldvae(m, 2, modality="rna", train_size="gone", **QUICK), "train_size='gone' must name"),
    "no-truth": (
        lambda m: tl.ldvae(m, 2, modality="rna", train_size="batch", **QUICK),
        "train_size: obs['batch']",
    ),
    "default": (lambda m: tl.associate(m, modality="rna", key="bare"), "keys=None leaves no column"),
}
# What the MuData knows is read, too.
OF_BOTH: dict[str, tuple[Callable[[MuData], object], str]] = {
    "keys": (lambda m: tl.associate(m, ["gone"], modality="rna"), "keys='gone' is not a column of obs."),
    "one-value": (lambda m: tl.associate(m, ["same"], modality="rna"), "keys: obs['same'] has 1 levels"),
    "groups": (lambda m: tl.differential_expression(m, "gone", modality="rna"), "groupby='gone' is not a column"),
    "deviance": (lambda m: tl.explained_deviance(m, "gone", modality="rna"), "groupby='gone' is not a column"),
    "unknown-group": (
        lambda m: tl.differential_expression(m, "true", groups=["gone"], modality="rna"),
        "groups: 'gone' is not a group of obs['true']",
    ),
    "unknown-reference": (
        lambda m: tl.differential_expression(m, "true", reference="gone", modality="rna"),
        "reference: 'gone' is not a group of obs['true']",
    ),
    "one-group": (
        lambda m: tl.differential_expression(m, "same", modality="rna"),
        "groupby: obs['same'] has 1 groups",
    ),
}
# What the fit knows of each cell.
NEW_LEVEL: dict[str, Callable[[MuData], object]] = {
    "elbo": lambda m: tl.elbo(m, modality="rna", progress=False),
    "deviance": lambda m: tl.explained_deviance(m, modality="rna", progress=False),
    "expression": lambda m: tl.normalized_expression(m, modality="rna", progress=False),
    "draws": lambda m: tl.posterior_predictive(m, modality="rna", progress=False),
    "comparison": lambda m: tl.differential_expression(m, "true", modality="rna", progress=False),
    "stability": lambda m: tl.stability(m, 2, modality="rna", progress=False),
    "rotation": lambda m: tl.rotate(m, modality="rna", key_added="rotated"),
    "parameters": lambda m: get.likelihood_parameters(m, modality="rna"),
    "correlation": lambda m: get.feature_correlation(m, modality="rna"),
}
OF_ALL: dict[str, tuple[Callable[[MuData], object], str]] = {
    "batch": (
        lambda m: tl.ldvae(m, 2, modalities=["rna", "prot"], batch_key="gone", **QUICK),
        "batch_key='gone' is not a column",
    ),
    "split": (
        lambda m: tl.ldvae(m, 2, modalities=["rna", "prot"], train_size="gone", **QUICK),
        "train_size='gone' must name",
    ),
    "keys": (lambda m: tl.associate(m, ["gone"]), "keys='gone' is not a column of obs."),
}
NEW_LEVEL_OF_ALL: dict[str, Callable[[MuData], object]] = {
    "elbo": lambda m: tl.elbo(m, progress=False),
    "expression": lambda m: tl.normalized_expression(m, modality="rna", progress=False),
    "correlation": get.feature_correlation,
}


@pytest.fixture
def mdata(fitted: AnnData) -> MuData:
    adata = fitted.copy()
    adata.obs["true"] = np.where(np.arange(adata.n_obs) % 2, "odd", "even")
    adata.obs["same"] = "one"
    other = adata[:, :20].copy()
    other.var_names = [f"protein{i}" for i in range(20)]
    return mudata.MuData({"rna": adata, "prot": other})


@pytest.mark.parametrize(("call", "sentence"), OF_ONE.values(), ids=OF_ONE)
def test_of_a_modality(
    call: Callable[[MuData], object], sentence: str, mdata: MuData, fit_quickly: Callable[..., None]
) -> None:
    if "keys=None" in sentence:
        mdata["rna"].obs = pd.DataFrame(index=mdata["rna"].obs_names)
        fit_quickly(mdata, 2, modality="rna", key_added="bare")
    with pytest.raises(ValueError, match=r"^In modality 'rna': ") as caught:
        call(mdata)
    assert str(caught.value).startswith(f"In modality 'rna': {sentence}")


@pytest.mark.parametrize(("call", "sentence"), OF_BOTH.values(), ids=OF_BOTH)
def test_of_a_modality_and_what_the_mudata_knows(
    call: Callable[[MuData], object], sentence: str, mdata: MuData
) -> None:
    with pytest.raises(ValueError, match=r"^In modality 'rna' and its MuData: ") as caught:
        call(mdata)
    assert str(caught.value).startswith(f"In modality 'rna' and its MuData: {sentence}")


@pytest.mark.parametrize("call", NEW_LEVEL.values(), ids=NEW_LEVEL)
def test_of_a_fitted_modality(call: Callable[[MuData], object], mdata: MuData) -> None:
    mdata["rna"].obs["batch"] = "new"
    with pytest.raises(ValueError, match=r"^In modality 'rna': obs\['batch'\] has the level 'new'"):
        call(mdata)


@pytest.mark.parametrize("empty", [False, True], ids=["logs", "no-X"])
def test_whose_raw_holds_counts(empty: bool, mdata: MuData) -> None:
    mdata["rna"].raw = mdata["rna"].copy()
    mdata["rna"].X = None if empty else mdata["rna"].X.log1p()
    own = r"mdata\['rna'\]\.raw"
    for to_do, asked in (("pass", {"modality": "rna"}), ("make the MuData with", {"modalities": ["rna", "prot"]})):
        with pytest.raises(ValueError, match=rf" {own} holds counts: {to_do} {own}\.to_adata\(\)\.$"):
            tl.ldvae(mdata, 2, key_added="new", **asked, **QUICK)
    with pytest.raises(ValueError, match=rf"{own} holds counts: pass {own}"):
        tl.elbo(mdata, modality="rna", progress=False)


def test_of_mapped_cells(mdata: MuData, fit_quickly: Callable[..., None]) -> None:
    mdata["rna"].obs["size"] = 1.0
    fit_quickly(mdata, modality="rna", size_factor_key="size")
    query = mdata.copy()
    query["rna"].obs = query["rna"].obs.drop(columns="size")
    with pytest.raises(ValueError, match=r"^In modality 'rna': size_factor_key='size' is not a column of obs\."):
        tl.project(query, mdata, modality="rna", progress=False)


def test_of_a_modality_of_a_joint_fit(joint: MuData) -> None:
    mdata = joint.copy()
    mdata["prot"].obs["batch"] = "new"
    for call in (
        lambda: tl.rotate(mdata, key_added="rotated"),
        lambda: tl.explained_deviance(mdata, progress=False),
        lambda: tl.explained_deviance(mdata, modality="prot", progress=False),
    ):
        with pytest.raises(ValueError, match=r"^In modality 'prot': obs\['batch'\] has the level 'new'"):
            call()


@pytest.mark.parametrize(("call", "sentence"), OF_ALL.values(), ids=OF_ALL)
def test_of_the_mudata(call: Callable[[MuData], object], sentence: str, joint: MuData) -> None:
    with pytest.raises(ValueError, match=r"^In the MuData: ") as caught:
        call(joint.copy())
    assert str(caught.value).startswith(f"In the MuData: {sentence}")


@pytest.mark.parametrize("call", NEW_LEVEL_OF_ALL.values(), ids=NEW_LEVEL_OF_ALL)
def test_of_a_fitted_mudata(call: Callable[[MuData], object], joint: MuData) -> None:
    mdata = joint.copy()
    mdata.obs["batch"] = "new"
    with pytest.raises(ValueError, match=r"^In the MuData: obs\['batch'\] has the level 'new'"):
        call(mdata)


def test_of_an_anndata_there_is_one_alone(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^batch_key='gone' is not a column of obs"):
        tl.ldvae(fitted.copy(), 2, batch_key="gone", **QUICK)
