"""The frame of cells x factors: against obsm and obs, of modalities, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

NAMES = ["ldvae1", "ldvae2", "ldvae3"]


def test_factors_are_those_of_obsm(fitted: AnnData) -> None:
    frame = get.latent(fitted)
    assert frame.index.equals(fitted.obs_names)
    assert frame.columns.tolist() == NAMES
    np.testing.assert_array_equal(frame.to_numpy(), fitted.obsm["X_ldvae"], strict=True)


@pytest.mark.parametrize("columns", ["batch", ["covariate1", "batch"]], ids=["one", "two-in-the-order-asked-for"])
def test_columns_of_obs_stand_beside_them(columns: list[str] | str, fitted: AnnData) -> None:
    adata = fitted[::-3].copy()
    adata.obs["batch"] = adata.obs["batch"].astype("category")
    frame = get.latent(adata, columns)
    names = np.ravel(columns).tolist()
    assert frame.columns.tolist() == NAMES + names
    pd.testing.assert_frame_equal(frame[names], adata.obs[names])
    np.testing.assert_array_equal(frame[NAMES], fitted.obsm["X_ldvae"][::-3])


def test_cells_of_one_name_keep_their_rows(fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.obs_names = ["cell"] * adata.n_obs
    frame = get.latent(adata, "covariate1")
    assert frame["covariate1"].tolist() == fitted.obs["covariate1"].tolist()
    np.testing.assert_array_equal(frame[NAMES], fitted.obsm["X_ldvae"])


def test_rotated_factors_are_those_that_stand_in_the_object(fitted: AnnData) -> None:
    adata = tl.rotate(fitted, "varimax", key_added="turned", copy=True)
    frame = get.latent(adata, key="turned")
    assert frame.columns.tolist() == ["turned1", "turned2", "turned3"]
    assert not np.allclose(frame, fitted.obsm["X_ldvae"])
    np.testing.assert_array_equal(frame, adata.obsm["turned"])


def test_vanished_factors_stay_as_those_of_the_loadings_do(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"]["decoder"]["loadings"][:, 1] = 0
    adata.obsm["X_ldvae"][:, 1] = 0
    reseal(adata)
    assert get.factors(adata)["vanished"].tolist() == [False, True, False]
    frame = get.latent(adata)
    assert frame.columns.equals(get.loadings(adata).columns)
    assert not frame["ldvae2"].any()


def test_a_joint_fit_has_the_latent_of_the_mudata(joint: MuData) -> None:
    frame = get.latent(joint, "age")
    assert frame.index.equals(joint.obs_names)
    np.testing.assert_array_equal(frame[NAMES], joint.obsm["X_ldvae"])
    assert frame["age"].tolist() == joint.obs["age"].tolist()


def test_a_modality_has_its_own_and_what_the_mudata_knows(joint: MuData) -> None:
    frame = get.latent(joint, "age", modality="prot")
    assert frame.index.equals(joint["prot"].obs_names)
    np.testing.assert_array_equal(frame[NAMES], joint["prot"].obsm["X_ldvae"])
    assert frame["age"].tolist() == joint.obs["age"].loc[joint["prot"].obs_names].tolist()


def test_unknown_columns_are_refused(fitted: AnnData, joint: MuData) -> None:
    with pytest.raises(ValueError, match=r"^obs_columns='gone' is not a column of obs\. Columns: 'true_library'"):
        get.latent(fitted, ["batch", "gone"])
    with pytest.raises(ValueError, match=r"^In the MuData: obs_columns='gone' is not a column of obs"):
        get.latent(joint, "gone")
    with pytest.raises(ValueError, match=r"^In modality 'rna' and its MuData: obs_columns='gone' is not a column"):
        get.latent(joint, "gone", modality="rna")
    with pytest.raises(ValueError, match=r"^obs_columns holds 'batch' more than once"):
        get.latent(fitted, ["batch", "batch"])


def test_a_column_with_the_name_of_a_factor_is_refused(fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.obs["ldvae2"] = 1
    with pytest.raises(ValueError, match=r"^obs_columns holds 'ldvae2', which is the name of a factor\. Rename"):
        get.latent(adata, "ldvae2")


def test_cells_without_a_latent_of_the_fit_are_refused(fitted: AnnData, simulated: AnnData) -> None:
    both = ad.concat([fitted, simulated], index_unique="-", uns_merge="first", merge="first", join="outer")
    with pytest.raises(ValueError, match=r"^200 of 400 cells have no latent .*Map them with sc_ldvae\.tl\.project"):
        get.latent(both)


def test_a_mudata_of_a_single_fit_needs_its_modality(fitted: AnnData) -> None:
    mdata = mudata.MuData({"rna": fitted.copy()})
    pd.testing.assert_frame_equal(get.latent(mdata, modality="rna"), get.latent(fitted))
    with pytest.raises(ValueError, match=r"^data is a MuData, and this is asked of one"):
        get.latent(mdata)
