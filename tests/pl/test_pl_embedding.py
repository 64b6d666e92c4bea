"""Cells of an embedding, coloured by the factors: where they are, in which colours, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from sc_ldvae import pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def drawn(axis: Axes) -> dict[tuple[float, ...], float]:
    """Value of the cell at each place."""
    (points,) = [one for one in axis.collections if isinstance(one, PathCollection)]
    places = np.ma.filled(points.get_offsets(), np.nan).astype(np.float32)
    return dict(zip(map(tuple, places), np.asarray(points.get_array()), strict=True))


def expected(positions: np.ndarray, values: np.ndarray) -> dict[tuple[float, ...], float]:
    return dict(zip(map(tuple, np.float32(positions[:, :2])), values, strict=True))


@pytest.fixture(scope="module")
def placed(fitted: AnnData) -> AnnData:
    adata = fitted.copy()
    for i, name in enumerate(["X_umap", "X_pca", "umap"]):
        adata.obsm[name] = np.random.default_rng(i).normal(size=(200, 3))
    adata.obsm["line"] = np.zeros((200, 1))
    return adata


def test_a_panel_for_each_factor(placed: AnnData) -> None:
    axes = pl.embedding(placed, [3, "ldvae1"], show=False)
    latent = placed.obsm["X_ldvae"]
    assert [axis.get_title() for axis in axes] == ["Factor 3", "Factor 1"]
    limit = np.percentile(np.abs(latent[:, [2, 0]]), 99)
    for axis, k in zip(axes, (2, 0), strict=True):
        assert drawn(axis) == expected(placed.obsm["X_umap"], latent[:, k])
        (points,) = axis.collections
        assert points.get_clim() == pytest.approx((-limit, limit))
        # What is far from zero lies on top, and at zero there is grey.
        assert (np.diff(np.abs(points.get_array())) >= 0).all()
        np.testing.assert_allclose(points.cmap(0.5)[:3], 0.88, atol=0.01)
    assert axes[0].figure.axes[-1].get_ylabel() == "value of the factor"


@pytest.mark.parametrize(
    ("basis", "name"), [("X_umap", "X_umap"), ("pca", "X_pca"), ("X_pca", "X_pca"), ("umap", "umap"), (None, "X_umap")]
)
def test_basis_as_scanpy_has_it(basis: str | None, name: str, placed: AnnData) -> None:
    (axis,) = pl.embedding(placed, 2, basis=basis, show=False)
    assert drawn(axis) == expected(placed.obsm[name], placed.obsm["X_ldvae"][:, 1])
    assert axis.get_xlabel() == name.removeprefix("X_")


def test_a_joint_fit_shows_cells_of_the_modality_that_has_the_embedding(joint: MuData) -> None:
    mdata = joint.copy()
    rna = mdata["prot"]
    rna.obsm["X_umap"] = np.random.default_rng(0).normal(size=(rna.n_obs, 2))
    (axis,) = pl.embedding(mdata, 1, show=False)
    found = {place: value for place, value in drawn(axis).items() if np.isfinite(place).all()}
    own = mdata.obs_names.get_indexer(rna.obs_names)
    assert found == expected(rna.obsm["X_umap"], mdata.obsm["X_ldvae"][own, 0])


def test_all_that_have_not_vanished(placed: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = placed.copy()
    adata.uns["ldvae"]["decoder"]["loadings"][:, 1] = 0
    adata.obsm["X_ldvae"][:, 1] = 0
    reseal(adata)
    axes = pl.embedding(adata, show=False)
    assert [axis.get_title() for axis in axes] == ["Factor 1", "Factor 3"]
    assert axes[0].figure.get_supxlabel() == "1 of 3 factors vanished"
    assert not pl.embedding(adata, [1], show=False)[0].figure.get_supxlabel()


@pytest.mark.parametrize("ncols", [1, 2, 9])
def test_ncols_lays_out_the_panels(ncols: int, placed: AnnData) -> None:
    axes = pl.embedding(placed, ncols=ncols, show=False)
    assert axes[0].get_subplotspec().get_gridspec().ncols == min(ncols, 3)
    assert [bool(axis.get_xlabel()) for axis in axes] == [k >= 3 - ncols for k in range(3)]


def test_axes_of_the_caller(placed: AnnData) -> None:
    one, two = Figure().add_subplot(), plt.figure().add_subplot()
    assert pl.embedding(placed, [1, 2], ax=[one, two], show=False) == [one, two]
    assert drawn(two) == expected(placed.obsm["X_umap"], placed.obsm["X_ldvae"][:, 1])
    assert all(axis.get_xlabel() == "umap" for axis in (one, two))


def test_without_counts_nothing_changes(placed: AnnData, unchanged: Callable[..., Any], tmp_path: Path) -> None:
    adata = placed.copy()
    adata.X = None
    with unchanged(adata):
        assert pl.embedding(adata, show=True) is None
        pl.embedding(adata, show=False, save=tmp_path / "plot.png")
    assert plt.imread(tmp_path / "plot.png").min() < 0.5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"basis": "tsne"}, r"basis='tsne' is not in obsm\. Choose one of .*'X_umap'", id="basis"),
        pytest.param({"basis": "line"}, r"basis='line' has the shape \(200, 1\), but two columns", id="one-column"),
        pytest.param({"factors": [9]}, "factors holds 9", id="factor"),
        pytest.param({"factors": []}, "factors is empty", id="no-factor"),
        pytest.param({"key": "foo"}, r"uns\['foo'\] holds no fit", id="key"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: str, placed: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        pl.embedding(placed, show=False, **options)
    assert not plt.get_fignums()
