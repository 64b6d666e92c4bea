"""The number of factors: simulations, where the result goes, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import torch

import sc_ldvae
from sc_ldvae import tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    AssertSame = Callable[[object, object], None]
    Unchanged = Callable[[ad.AnnData], AbstractContextManager[None]]

NAME = "ldvae_n_latent"
COLUMNS = ("elbo", "elbo_behind", "elbo_behind_se", "explained_deviance", "stability", "n_stable", "n_active")


@pytest.fixture(scope="module")
def small() -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(60, 30, 2, n_batches=2, n_continuous=1, rng=0)
    adata.obs["sex"] = pd.Categorical(np.random.default_rng(0).choice(["female", "male"], 60))
    adata.layers["counts"] = adata.X.copy()
    adata.var["chosen"] = np.arange(30) < 12
    return adata


def selected(data: Any, n_latent: Any = (1, 3), **options: Any) -> dict[str, Any]:
    asked = {"n_seeds": 1, "max_epochs": 2, "copy": True, "progress": False} | options
    return tl.select_n_latent(data, n_latent, **asked).uns[options.get("key_added", NAME)]


@pytest.mark.parametrize(("n_latent", "grid"), [(3, [2, 3, 4, 6]), (6, [3, 5, 6, 7, 9])])
def test_number_of_factors_of_a_simulation(n_latent: int, grid: list[int]) -> None:
    adata = sc_ldvae.datasets.simulate(600, 200, n_latent, rng=0)
    got = selected(adata, grid, max_epochs=40)
    assert abs(got["recommended"] - n_latent) <= 1
    # Of one factor too many the halves may agree; of more they do not.
    assert got["n_stable"][-1] <= n_latent + 1 < grid[-1]
    assert got["n_stable"][grid.index(n_latent)] >= n_latent - 1
    assert got["stability"][-1] < got["stability"][0]
    assert got["explained_deviance"][-1] > 0


def test_result_and_where_it_goes(
    small: ad.AnnData, assert_same: AssertSame, unchanged: Unchanged, tmp_path: Path
) -> None:
    with unchanged(small):
        expected = selected(small, [3, 1, 3, 2])
    assert expected["n_latent"].tolist() == [1, 2, 3]
    assert list(expected) == ["n_latent", *COLUMNS, "recommended", "reason", "params", "checksum"]
    assert all(expected[name].shape == (3,) for name in COLUMNS)
    assert expected["elbo_behind"].min() == 0
    assert (expected["n_active"] <= expected["n_latent"]).all()
    adata = small.copy()
    tl.select_n_latent(adata, range(1, 4), n_seeds=1, max_epochs=2, key_added="mine", progress=False)
    assert_same(adata.uns["mine"], expected)
    adata.write_h5ad(tmp_path / "result.h5ad")
    adata.write_zarr(tmp_path / "result.zarr")
    for back in (ad.read_h5ad(tmp_path / "result.h5ad"), ad.read_zarr(tmp_path / "result.zarr")):
        for name in COLUMNS:
            np.testing.assert_array_equal(back.uns["mine"][name], expected[name])
        assert str(back.uns["mine"]["reason"]) == expected["reason"]
    del adata.uns["mine"]
    assert_same(adata, small)
    data = mudata.MuData({"rna": small.copy()})
    tl.select_n_latent(data, [1, 2, 3], n_seeds=1, max_epochs=2, modality="rna", progress=False)
    assert_same(data.mod["rna"].uns[NAME], expected)


def test_same_seed_same_result_whatever_the_global_generators_do(small: ad.AnnData, assert_same: AssertSame) -> None:
    first = selected(small, rng=3)
    np.random.seed(1)  # noqa: NPY002  the point of the test
    torch.manual_seed(1)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert_same(selected(small, rng=np.random.default_rng(3)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (selected(small, rng=4)["elbo"] != first["elbo"]).all()
    assert (selected(small, rng=3, n_seeds=2)["elbo"] != first["elbo"]).all()


def test_arguments_of_the_fit_are_passed_on(small: ad.AnnData) -> None:
    plain = selected(small)
    every = {
        "batch_key": "batch",
        "categorical_covariate_keys": ["sex"],
        "continuous_covariate_keys": ["covariate1"],
        "gene_likelihood": "poisson",
        "latent_distribution": "ln",
        "size_factor_key": "true_library",
        "n_hidden": 16,
        "lr": 0.01,
        "mask_var": "chosen",
    }
    for name, value in every.items():
        assert (selected(small, **{name: value})["elbo"] != plain["elbo"]).all(), name
    together = selected(small, **every)["params"]
    assert together["gene_likelihood"] == "poisson"
    assert together["n_seeds"] == 1
    assert together["max_epochs"] == 2
    assert together["categorical_covariate_keys"].tolist() == ["sex"]


def test_counts_of_a_layer(small: ad.AnnData) -> None:
    adata = small.copy()
    adata.X = None
    np.testing.assert_array_equal(selected(adata, layer="counts")["elbo"], selected(small)["elbo"])


def test_highly_variable_genes_are_the_default(small: ad.AnnData) -> None:
    adata = small.copy()
    adata.var["highly_variable"] = adata.var["chosen"]
    np.testing.assert_array_equal(selected(adata)["elbo"], selected(small, mask_var="chosen")["elbo"])
    np.testing.assert_array_equal(selected(adata, mask_var=None)["elbo"], selected(small)["elbo"])


def as_it_is(adata: ad.AnnData) -> ad.AnnData:
    return adata


def few_cells(adata: ad.AnnData) -> ad.AnnData:
    return adata[:7].copy()


def without_counts(adata: ad.AnnData) -> ad.AnnData:
    adata.X = None
    return adata


def fitted_there(adata: ad.AnnData) -> ad.AnnData:
    tl.ldvae(adata, 2, max_epochs=2, key_added=NAME, progress=False)
    return adata


NO_LIST = "n_latent must be a list of whole numbers, but is "


@pytest.mark.parametrize(
    ("change", "options", "error", "sentence"),
    [
        pytest.param(as_it_is, {"n_latent": 5}, TypeError, NO_LIST + r"5", id="int"),
        pytest.param(as_it_is, {"n_latent": 5.0}, TypeError, NO_LIST + r"5.0", id="float"),
        pytest.param(as_it_is, {"n_latent": None}, TypeError, NO_LIST + r"None", id="nothing"),
        pytest.param(as_it_is, {"n_latent": []}, ValueError, r"n_latent holds no number. Give", id="empty"),
        pytest.param(as_it_is, {"n_latent": [0, 2]}, ValueError, r"n_latent must be at least 1", id="zero"),
        pytest.param(as_it_is, {"n_latent": [2, 2.5]}, TypeError, NO_LIST + r"\[2, 2.5\]", id="half"),
        pytest.param(as_it_is, {"n_latent": [2, "3"]}, TypeError, NO_LIST + r"\[2, '3'\]", id="text"),
        pytest.param(as_it_is, {"n_latent": [2, 30]}, ValueError, r"below the number .* genes \(30\)", id="many"),
        pytest.param(
            as_it_is,
            {"n_latent": [2, 12], "mask_var": "chosen"},
            ValueError,
            r"fitted genes \(12\)",
            id="mask-many",
        ),
        pytest.param(as_it_is, {"n_seeds": 0}, ValueError, r"n_seeds must be at least 1, but is 0", id="no-seed"),
        pytest.param(as_it_is, {"n_seeds": True}, TypeError, r"n_seeds must be a whole number, but is True", id="flag"),
        pytest.param(as_it_is, {"n_epochs": 3}, TypeError, r"'n_epochs' is no argument .* batch_key, ", id="unknown"),
        pytest.param(as_it_is, {"train_size": 0.9}, TypeError, r"'train_size' is no argument that fits", id="split"),
        pytest.param(as_it_is, {"random_state": 1}, TypeError, r"'random_state' is no argument that fits", id="alias"),
        pytest.param(as_it_is, {"batch_key": "none"}, ValueError, r"batch_key='none' is not a column", id="batch"),
        pytest.param(as_it_is, {"max_epochs": 0}, ValueError, r"max_epochs must be at least 1", id="epochs"),
        pytest.param(as_it_is, {"lr": 0}, ValueError, r"lr must be above 0 and at most", id="lr"),
        pytest.param(as_it_is, {"lr": "0.1"}, TypeError, r"lr must be a number, but is '0.1'\.", id="lr-text"),
        pytest.param(
            as_it_is, {"n_hidden": [8]}, TypeError, r"n_hidden must be a whole number, but is \[8\]", id="hidden"
        ),
        pytest.param(as_it_is, {"layer": "none"}, ValueError, r"layer='none' is not in layers", id="layer"),
        pytest.param(as_it_is, {"mask_var": "none"}, ValueError, r"mask_var='none' is not a column of var", id="mask"),
        pytest.param(as_it_is, {"key_added": "a/b"}, ValueError, r"key_added='a/b' can't name", id="slash"),
        pytest.param(fitted_there, {}, ValueError, r"would replace the fit in uns", id="over-a-fit"),
        pytest.param(few_cells, {}, ValueError, r"data has 7 cells, too few .* 8 are needed", id="few-cells"),
        pytest.param(without_counts, {}, ValueError, r"X is empty. Name the layer", id="no-counts"),
    ],
)
def test_refused(
    small: ad.AnnData,
    unchanged: Unchanged,
    change: Callable[[ad.AnnData], ad.AnnData],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    adata = change(small.copy())
    asked = {"n_latent": [1, 2], "n_seeds": 1, "max_epochs": 2} | options
    with unchanged(adata), pytest.raises(error, match=sentence):
        tl.select_n_latent(adata, **asked, progress=False)
