"""Factors by group of cells: violins, a matrix of means, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection, PolyCollection

from sc_ldvae import pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

GROUPS = ["z last by name", "a", "b"]


def labels_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def medians_of(axis: Axes) -> np.ndarray:
    (points,) = [one for one in axis.collections if isinstance(one, PathCollection)]
    return np.asarray(points.get_offsets())


def violins_of(axis: Axes) -> list[PolyCollection]:
    """Filled curves, which are not drawn of single cells."""
    return [one for one in axis.collections if not isinstance(one, PathCollection)]


def ends_of(violin: PolyCollection) -> tuple[float, float]:
    levels = violin.get_paths()[0].vertices[:, 0]
    return levels.min(), levels.max()


@pytest.fixture(scope="module")
def sorted_cells(fitted: AnnData) -> AnnData:
    """Three groups whose order is not that of their names, of which one has a single cell; seven cells have none."""
    adata = fitted.copy()
    names = np.array(["z last by name", "a"])[(adata.obsm["X_ldvae"][:, 1] > 0).astype(int)].astype(object)
    names[:7], names[7] = None, "b"
    adata.obs["group"] = pd.Categorical(names, categories=GROUPS)
    return adata


def cells_of(adata: AnnData, group: str, k: int) -> np.ndarray:
    return adata.obsm["X_ldvae"][(adata.obs["group"] == group).to_numpy(), k].astype(np.float64)


def test_violins_of_each_group(sorted_cells: AnnData) -> None:
    axes = pl.latent(sorted_cells, "group", factors=[2, 3], show=False)
    assert [axis.get_title() for axis in axes] == ["Factor 2", "Factor 3"]
    sizes = sorted_cells.obs["group"].value_counts()
    assert labels_of(axes[0]) == [f"{group} ({sizes[group]})" for group in GROUPS]
    for axis, k in zip(axes, (1, 2), strict=True):
        values = [cells_of(sorted_cells, group, k) for group in GROUPS]
        np.testing.assert_allclose(medians_of(axis), [(np.median(own), row) for row, own in enumerate(values)])
        # The first is on top.
        assert axis.get_ylim()[0] > axis.get_ylim()[1]
        for violin, own in zip(violins_of(axis), values[:2], strict=True):
            np.testing.assert_allclose(ends_of(violin), (own.min(), own.max()))


def test_violins_are_wide_where_the_cells_are(sorted_cells: AnnData) -> None:
    adata = sorted_cells.copy()
    adata.obs["one"] = "one"
    adata.obsm["X_ldvae"][:, 0] = np.r_[np.linspace(-1.1, -0.9, 150), np.linspace(0.9, 1.1, 50)]
    (axis,) = pl.latent(adata, "one", factors=1, show=False)
    (violin,) = violins_of(axis)
    outline = violin.get_paths()[0].vertices
    heights = [np.abs(outline[np.abs(outline[:, 0] - x) < 0.02, 1]).max() for x in (-1, 0, 1)]
    assert heights[0] > 2 * heights[2] > 20 * heights[1]


def test_colours_are_those_of_a_cell_of_the_median(sorted_cells: AnnData) -> None:
    (axis,) = pl.latent(sorted_cells, "group", factors=[2], show=False)
    low, high = (violin.get_facecolor()[0] for violin in violins_of(axis))
    # Blue below zero, red above.
    assert low[2] > low[0]
    assert high[0] > high[2]


def test_large_groups_are_as_quick_as_small_ones(sorted_cells: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def kde(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        seen.append(values)
        return np.ones_like

    monkeypatch.setattr("sc_ldvae.pl._violins.gaussian_kde", kde)
    monkeypatch.setattr("sc_ldvae.pl._violins._MOST_CELLS", 11)
    (axis,) = pl.latent(sorted_cells, "group", factors=[2], show=False)
    assert [len(values) for values in seen] == [11, 11]
    own = cells_of(sorted_cells, "a", 1)
    assert set(seen[1]) <= set(own)
    # Ends and medians are those of all cells.
    np.testing.assert_allclose(ends_of(violins_of(axis)[1]), (own.min(), own.max()))
    assert medians_of(axis)[1, 0] == pytest.approx(np.median(own))


def test_matrix_of_means(sorted_cells: AnnData) -> None:
    (axis,) = pl.latent(sorted_cells, "group", kind="matrix", factors=[3, 1], show=False)
    latent = sorted_cells.obsm["X_ldvae"].astype(np.float64)
    expected = [
        [(cells_of(sorted_cells, group, k).mean() - latent[:, k].mean()) / latent[:, k].std() for k in (2, 0)]
        for group in GROUPS
    ]
    (image,) = axis.images
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-6)
    assert image.get_clim()[0] == -image.get_clim()[1]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["3", "1"]
    assert [label.split(" (")[0] for label in labels_of(axis)] == GROUPS
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("factor", "group")


def test_a_constant_factor_is_at_its_mean_everywhere(sorted_cells: AnnData) -> None:
    adata = sorted_cells.copy()
    adata.obsm["X_ldvae"][:, 0] = 0.7
    (axis,) = pl.latent(adata, "group", kind="matrix", show=False)
    assert not axis.images[0].get_array()[:, 0].any()
    (axis,) = pl.latent(adata, "group", factors=[1], show=False)
    assert not violins_of(axis)


@pytest.mark.parametrize("kind", ["violin", "matrix"])
def test_the_picture_says_what_is_left_out(kind: Any, sorted_cells: AnnData, reseal: Callable[..., None]) -> None:
    adata = sorted_cells.copy()
    adata.uns["ldvae"]["decoder"]["loadings"][:, 2] = 0
    adata.obsm["X_ldvae"][:, 2] = 0
    reseal(adata)
    figure = pl.latent(adata, "group", kind=kind, show=False)[0].figure
    assert figure.get_supxlabel() == "7 cells have no group; 1 of 3 factors vanished"
    assert not pl.latent(adata, "batch", kind=kind, factors=[1], show=False)[0].figure.get_supxlabel()


def test_names_of_groups_stand_on_the_left_only(sorted_cells: AnnData) -> None:
    axes = pl.latent(sorted_cells, "group", ncols=2, show=False)
    axes[0].figure.draw_without_rendering()
    shown = [any(tick.label1.get_visible() for tick in axis.yaxis.get_major_ticks()) for axis in axes]
    assert shown == [True, False, True]
    assert [bool(axis.get_xlabel()) for axis in axes] == [False, True, True]
    given = plt.subplots(1, 3)[1]
    assert all(axis.get_ylabel() == "group" for axis in pl.latent(sorted_cells, "group", ax=given, show=False))


@pytest.mark.parametrize("kind", ["violin", "matrix"])
@pytest.mark.parametrize("n", [1, 60])
def test_few_and_many_groups_with_long_names(n: int, kind: Any, fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.obs["type"] = [f"cells of a type with a very long name indeed, number {i % n}" for i in range(200)]
    axes = pl.latent(adata, "type", kind=kind, show=False)
    figure = axes[0].figure
    figure.canvas.draw()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert min(axis.get_window_extent().width for axis in axes) > 0.9 * figure.dpi
    ticks = [label.get_window_extent() for label in axes[0].get_yticklabels()]
    assert all(low.y1 <= high.y0 + 1 for high, low in pairwise(ticks))


def test_groups_of_a_joint_fit_are_the_mudatas(joint: MuData) -> None:
    (axis,) = pl.latent(joint, "batch", factors=[1], show=False)
    latent, batch = joint.obsm["X_ldvae"][:, 0], joint.obs["batch"].to_numpy()
    np.testing.assert_allclose(medians_of(axis)[:, 0], [np.median(latent[batch == one]) for one in ("one", "two")])
    (axis,) = pl.latent(joint, "batch", factors=[1], modality="prot", show=False)
    latent, batch = joint["prot"].obsm["X_ldvae"][:, 0], joint.obs["batch"].loc[joint["prot"].obs_names].to_numpy()
    np.testing.assert_allclose(medians_of(axis)[:, 0], [np.median(latent[batch == one]) for one in ("one", "two")])


@pytest.mark.parametrize("kind", ["violin", "matrix"])
def test_without_counts_nothing_changes(
    kind: Any, sorted_cells: AnnData, unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    adata = sorted_cells.copy()
    adata.X = None
    with unchanged(adata):
        pl.latent(adata, "group", kind=kind, show=False, save=tmp_path / "plot.png")
    assert plt.imread(tmp_path / "plot.png").min() < 0.5


@pytest.mark.parametrize(
    ("groupby", "options", "error"),
    [
        pytest.param("gone", {}, "groupby='gone' is not a column of obs", id="column"),
        pytest.param("none", {}, r"groupby: obs\['none'\] has 0 groups, but 1 to 100 can be shown", id="no-group"),
        pytest.param("own", {}, r"groupby: obs\['own'\] has 200 groups, but 1 to 100 can be shown", id="many"),
        pytest.param("batch", {"kind": "bar"}, "kind must be 'violin' or 'matrix', but is 'bar'", id="kind"),
        pytest.param("batch", {"factors": [9]}, "factors holds 9", id="factor"),
        pytest.param("batch", {"key": "foo"}, r"uns\['foo'\] holds no fit", id="key"),
    ],
)
def test_bad_arguments_are_refused(
    groupby: str, options: dict[str, Any], error: str, fitted: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sc_ldvae.pl._latent._MOST_GROUPS", 100)
    adata = fitted.copy()
    adata.obs["own"], adata.obs["none"] = adata.obs_names, None
    with pytest.raises(ValueError, match=f"^{error}"):
        pl.latent(adata, groupby, show=False, **options)
    assert not plt.get_fignums()
