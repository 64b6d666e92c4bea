"""Frames of what the tools found out about factors: against what is stored, from files, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

from sc_ldvae import get, record, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Getter = Callable[..., pd.DataFrame]

NAMES = ["ldvae1", "ldvae2", "ldvae3"]
TOOLS = {
    get.explained_deviance: ("explained_deviance", "ldvae_explained_deviance"),
    get.stability: ("stability", "ldvae_stability"),
    get.consensus_loadings: ("stability", "ldvae_stability"),
    get.n_latent: ("select_n_latent", "ldvae_n_latent"),
}
each_getter = pytest.mark.parametrize("getter", TOOLS, ids=lambda getter: getter.__name__)
of_the_fit = pytest.mark.parametrize("getter", list(TOOLS)[:3], ids=lambda getter: getter.__name__)


def by_group(data: Any, **options: Any) -> pd.DataFrame:
    return get.explained_deviance(data, by_group=True, **options)


def test_explained_deviance_is_the_stored_one(assessed: ad.AnnData) -> None:
    frame, stored = get.explained_deviance(assessed), assessed.uns["ldvae_explained_deviance"]
    assert frame.index.tolist() == NAMES
    assert frame.index.name == "factor"
    assert frame.columns.tolist() == ["share", "marginal", "cumulative"]
    for name in frame:
        np.testing.assert_array_equal(frame[name], stored[name])
    numbers = {name: stored[name] for name in ("total", "base", "n_cells")}
    assert frame.attrs == numbers | {"cells": "all", "thinned": 0.25, "groupby": "batch"}
    # What is explained without factors and the shares add up to the total.
    np.testing.assert_allclose(frame["cumulative"], frame.attrs["base"] + frame["share"].cumsum())
    assert frame["cumulative"].iloc[-1] == pytest.approx(frame.attrs["total"])


def test_groups_of_explained_deviance(assessed: ad.AnnData) -> None:
    frame, stored = by_group(assessed), assessed.uns["ldvae_explained_deviance"]["groups"]
    assert frame.index.tolist() == ["batch0", "batch1"]
    assert frame.columns.tolist() == ["n_cells", "total", *NAMES]
    sizes = assessed.obs["batch"].value_counts()
    assert frame["n_cells"].tolist() == sizes[["batch0", "batch1"]].tolist()
    np.testing.assert_array_equal(frame["total"], stored["total"])
    np.testing.assert_array_equal(frame[NAMES], stored["share"])
    assert frame.attrs == get.explained_deviance(assessed).attrs


def test_results_of_older_versions_have_marginal_shares(assessed: ad.AnnData) -> None:
    adata = assessed.copy()
    result = adata.uns["ldvae_explained_deviance"]
    for part in (result, result["groups"]):
        del part["share"]
    # The values are not those that were written.
    del result["checksum"]
    frame = get.explained_deviance(adata)
    assert frame.columns.tolist() == ["marginal", "cumulative"]
    np.testing.assert_array_equal(frame["marginal"], result["marginal"])
    np.testing.assert_array_equal(by_group(adata)[NAMES], result["groups"]["marginal"])


def test_groups_that_were_not_measured_are_refused(fitted: ad.AnnData) -> None:
    adata = tl.explained_deviance(fitted, copy=True, progress=False)
    with pytest.raises(ValueError, match=r"^by_group=True, but uns\['ldvae_explained_deviance'\] has no groups"):
        by_group(adata)


def test_stability_is_the_mean_over_refits(assessed: ad.AnnData) -> None:
    frame, stored = get.stability(assessed), assessed.uns["ldvae_stability"]
    assert frame.index.tolist() == NAMES
    assert frame.columns.tolist() == ["score", "replication", "cosine", "span", "splits", "merges"]
    np.testing.assert_array_equal(frame["score"], stored["score"])
    np.testing.assert_array_equal(frame["span"], stored["span"])
    np.testing.assert_allclose(frame["replication"], stored["replication"].sum(0) / 2, rtol=1e-12)
    np.testing.assert_allclose(frame["cosine"], stored["cosine"].sum(0) / 4, rtol=1e-12)
    assert frame["splits"].tolist() == stored["splits"].tolist()
    assert frame["merges"].tolist() == stored["merges"].tolist()
    assert frame.attrs == {"n_seeds": 4, "subsample": "halves", "rotation": ""}


@pytest.mark.parametrize("as_what", [np.int8, np.uint8, bool], ids=["int", "unsigned", "bool"])
def test_flags_are_boolean(as_what: type, assessed: ad.AnnData) -> None:
    adata = assessed.copy()
    result = {name: value for name, value in adata.uns["ldvae_stability"].items() if name not in {"checksum", "fit"}}
    record.write_result(
        adata, "ldvae_stability", result | {"splits": np.array([False, True, False])}, record.read(adata)
    )
    adata.uns["ldvae_stability"]["splits"] = adata.uns["ldvae_stability"]["splits"].astype(as_what)
    frame = get.stability(adata)
    assert frame["splits"].dtype == bool
    assert frame["splits"].tolist() == [False, True, False]


def test_consensus_loadings_follow_the_genes_of_the_fit(assessed: ad.AnnData) -> None:
    frame = get.consensus_loadings(assessed)
    assert frame.index.tolist() == assessed.uns["ldvae"]["genes"].tolist()
    assert frame.columns.tolist() == NAMES
    np.testing.assert_array_equal(frame, assessed.uns["ldvae_stability"]["consensus"])
    assert frame.attrs == get.stability(assessed).attrs


def test_numbers_of_factors_are_the_stored_ones(assessed: ad.AnnData) -> None:
    frame, stored = get.n_latent(assessed), assessed.uns["ldvae_n_latent"]
    assert frame.index.tolist() == [1, 2, 4]
    assert frame.index.name == "n_latent"
    assert frame.columns.tolist() == [
        *("elbo", "elbo_behind", "elbo_behind_se", "explained_deviance", "stability", "n_stable", "n_active")
    ]
    for name in frame:
        np.testing.assert_array_equal(frame[name], stored[name])
    assert frame.attrs == {"recommended": stored["recommended"], "reason": stored["reason"]}
    assert frame.loc[frame.attrs["recommended"], "elbo_behind"] <= frame["elbo_behind"].max()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_same_frames_from_a_file(suffix: str, assessed: ad.AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"assessed.{suffix}"
    getattr(assessed, f"write_{suffix}")(path)
    back = (ad.read_h5ad if suffix == "h5ad" else ad.read_zarr)(path)
    for getter in (*TOOLS, by_group):
        frame, expected = getter(back), getter(assessed)
        pd.testing.assert_frame_equal(frame, expected, check_exact=True, check_column_type=False)
        assert frame.attrs == expected.attrs
        types, expected_types = ({name: type(x) for name, x in one.attrs.items()} for one in (frame, expected))
        assert types == expected_types


@each_getter
def test_without_x_and_of_a_modality(getter: Getter, assessed: ad.AnnData, unchanged: Callable[..., Any]) -> None:
    adata = assessed.copy()
    adata.X = None
    with unchanged(adata):
        frame = getter(adata)
        for column in frame.select_dtypes("number"):
            frame.loc[:, column] = 7
    pd.testing.assert_frame_equal(
        getter(mudata.MuData({"rna": adata}), modality="rna"), getter(assessed), check_flags=False
    )


@each_getter
def test_other_names_of_results(getter: Getter, assessed: ad.AnnData) -> None:
    adata = assessed.copy()
    adata.uns["mine"] = adata.uns.pop(TOOLS[getter][1])
    pd.testing.assert_frame_equal(getter(adata, key_added="mine"), getter(assessed))


@each_getter
@pytest.mark.parametrize("stored", [None, {"marginal": [1.0]}, "text"], ids=["none", "other", "text"])
def test_what_was_not_computed_is_refused(getter: Getter, stored: object, assessed: ad.AnnData) -> None:
    adata, (tool, name) = assessed.copy(), TOOLS[getter]
    del adata.uns[name]
    if stored is not None:
        adata.uns[name] = stored
    with pytest.raises(ValueError, match=rf"^uns\['{name}'\] holds no result of sc_ldvae\.tl\.{tool}\. Call it first"):
        getter(adata)


@each_getter
def test_what_was_changed_is_refused(getter: Getter, assessed: ad.AnnData) -> None:
    adata, (tool, name) = assessed.copy(), TOOLS[getter]
    part = next(part for part, value in adata.uns[name].items() if getattr(value, "dtype", None) == np.float64)
    adata.uns[name][part] = adata.uns[name][part] + 1e-3
    sentence = rf"^uns\['{name}'\] is damaged: its values are not .* written\. Call sc_ldvae\.tl\.{tool} again\."
    with pytest.raises(ValueError, match=sentence):
        getter(adata)


@of_the_fit
@pytest.mark.parametrize("change", [{"n_latent": 2}, {"rng": 1}], ids=["another number of factors", "another seed"])
def test_results_of_another_fit_are_refused(
    change: dict[str, int], getter: Getter, assessed: ad.AnnData, fit_quickly: Callable[..., ad.AnnData]
) -> None:
    adata = fit_quickly(assessed, copy=True, **change)
    sentence = rf"^uns\['{TOOLS[getter][1]}'\] is of another fit than uns\['ldvae'\] holds now\. Call sc_ldvae\.tl\."
    with pytest.raises(ValueError, match=sentence):
        getter(adata)


@of_the_fit
def test_no_fit_is_refused(getter: Getter, assessed: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"^uns\['foo'\] holds no fit"):
        getter(assessed, key="foo")


@pytest.mark.parametrize("getter", [get.associations], ids=["associations"])
def test_factors_of_tables_are_named_once(getter: Getter, assessed: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"^factors holds 'ldvae2' more than once\. Name each once\."):
        getter(assessed, [2, "ldvae2"])
