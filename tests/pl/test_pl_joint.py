"""Pictures of a fit of several modalities: what is drawn, where, and what is refused."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from sc_ldvae import get, pl, record, tl
from sc_ldvae.record._joint import sealed_joint
from sc_ldvae.record._sealed import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from mudata import MuData

MODALITIES = ["rna", "prot", "$tf$ of $x$"]
NAMES = ["ldvae1", "ldvae2", "ldvae3"]


def texts_of(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def bars_of(axis: Axes) -> dict[str, float]:
    widths = [bar.get_width() for bar in axis.patches]
    return dict(zip(texts_of(axis.get_yticklabels()), widths, strict=True))


def written_in(axis: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axis.texts}


def test_modalities_are_rows_of_a_heat_map(joint: MuData) -> None:
    axis, frame = pl.modalities(joint, show=False), get.modalities(joint)
    shares = 100 * frame.T.to_numpy()
    strengths = 100 * shares.clip(0) / shares.max(1, keepdims=True).clip(1e-9)
    np.testing.assert_allclose(axis.images[0].get_array(), strengths)
    assert texts_of(axis.get_yticklabels()) == MODALITIES
    assert texts_of(axis.get_xticklabels()) == ["1", "2", "3", "all"]
    assert axis.get_title() == "explained deviance (%)\nheld-out cells, colours by row"
    written, apart = written_in(axis), axis.get_xticks()[-1]
    for row, modality in enumerate(MODALITIES):
        assert float(written[apart, row]) == pytest.approx(100 * frame.attrs["total"][modality], abs=0.0501)
        for column in range(3):
            assert float(written[column, row]) == pytest.approx(shares[row, column], abs=0.0501)
    # The largest of a row is dark, however small.
    assert (strengths == 100).any()
    for row, column in np.argwhere(strengths == 100):
        (text,) = [text for text in axis.texts if text.get_position() == (column, row)]
        assert to_rgb(text.get_color()) == (1, 1, 1)
    assert len(axis.figure.axes) == 1


def test_on_small_axes_colours_have_a_bar(joint: MuData) -> None:
    _, axis = plt.subplots(figsize=(1.2, 1))
    assert pl.modalities(joint, ax=axis, show=False) is axis
    assert len(axis.texts) == 3
    assert axis.figure.axes[1].get_ylabel() == "% of the largest of the row"


def test_modalities_where_no_cell_was_held_out(joint: MuData) -> None:
    mdata = joint.copy()
    mdata.obs["ldvae_held_out"] = False
    assert pl.modalities(mdata, show=False).get_title().endswith("cells of the fit, colours by row")


@pytest.mark.parametrize("kind", ["bar", "rank", "dot"])
def test_each_factor_has_a_panel_for_each_modality(kind: Any, joint: MuData) -> None:
    axes, shares = pl.loadings(joint, [3, 1], 4, kind=kind, show=False), get.modalities(joint)
    assert [axis.get_title() for axis in axes] == [
        f"Factor {k}: {modality}\n{100 * shares.loc[f'ldvae{k}', modality]:z.1f} % of deviance"
        for k in (3, 1)
        for modality in MODALITIES
    ]
    limits = [axis.get_ylim() if kind == "rank" else axis.get_xlim() for axis in axes]
    assert limits[:3] == limits[3:]
    assert len(set(limits)) == 3


def test_bars_are_the_top_genes_of_the_modality(joint: MuData) -> None:
    frame, table = get.loadings(joint), get.top_genes(joint, 4)
    axes = iter(pl.loadings(joint, n_genes=4, show=False))
    for name in NAMES:
        for modality in MODALITIES:
            bars, own = bars_of(next(axes)), table.loc[name].loc[modality]
            assert set(bars) == set(own.index)
            assert bars == pytest.approx(frame.loc[modality, name][list(bars)].to_dict())


def test_panels_turn_together(joint: MuData) -> None:
    axes, frame = pl.loadings(joint, [2], rotation="modality", show=False), get.loadings(joint, rotation="modality")
    assert [axis.get_title() for axis in axes] == [f"Factor 2 (modality): {modality}" for modality in MODALITIES]
    (alone,) = pl.loadings(joint, [2], rotation="modality", modality="prot", show=False)
    assert bars_of(alone) == bars_of(axes[1])
    assert bars_of(alone) == pytest.approx(frame.loc["prot", "ldvae2"][list(bars_of(alone))].to_dict())
    scatter = pl.loadings_scatter(joint, rotation="varimax", modality="prot", show=False)
    shown = get.loadings(joint, rotation="varimax").loc["prot", ["ldvae1", "ldvae2"]].to_numpy()
    offsets = np.vstack([points.get_offsets() for points in scatter.collections])
    np.testing.assert_allclose(np.sort(offsets, axis=0), np.sort(shown, axis=0), rtol=1e-5)


@pytest.mark.parametrize(("ncols", "columns"), [(1, 3), (8, 6)])
def test_all_panels_of_a_factor_stand_in_one_row(ncols: int, columns: int, joint: MuData) -> None:
    axes = pl.loadings(joint, n_genes=1, ncols=ncols, show=False)
    assert axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_given_axes_are_one_for_each_panel(joint: MuData) -> None:
    _, axes = plt.subplots(1, 6)
    assert pl.loadings(joint, [1, 2], ax=axes, show=False) == list(axes)
    with pytest.raises(ValueError, match=r"^ax holds 6 axes, but 3 panels"):
        pl.loadings(joint, 1, ax=axes, show=False)


@pytest.mark.parametrize(("ncols", "columns"), [(None, 4), (2, 8)])
def test_tiles_have_genes_of_each_modality(ncols: int | None, columns: int, joint: MuData) -> None:
    figure, shares = pl.factors(joint, [1, 3], ncols=ncols, show=False), get.modalities(joint)
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns
    for k, tile in zip((1, 3), (figure.axes[:4], figure.axes[4:8]), strict=True):
        cells, *bars = tile
        assert cells.get_title(loc="left") == f"Factor {k}"
        assert texts_of(cells.texts) == [""]
        order = np.argsort(np.abs(joint.obsm["X_ldvae"][:, k - 1]), kind="stable")
        np.testing.assert_allclose(cells.collections[0].get_offsets(), joint.obsm["X_ldvae"][order, :2])
        for axis, modality in zip(bars, MODALITIES, strict=True):
            share = 100 * shares.loc[f"ldvae{k}", modality]
            assert axis.get_title() == f"{modality}: {share:z.1f} % of deviance"
            assert set(bars_of(axis)) == set(get.top_genes(joint, 5).loc[f"ldvae{k}"].loc[modality].index)


def test_titles_and_notes_do_not_meet(joint_assessed: MuData) -> None:
    mdata = joint_assessed.copy()
    for k, name in enumerate(NAMES):
        # What a factor hardly follows is not named.
        mdata.obs[f"sign of {name}"] = np.where(mdata.obsm["X_ldvae"][:, k] > 0, "above", "below")
    tl.associate(mdata)
    figure = pl.factors(mdata, show=False)
    figure.canvas.draw()
    measured = get.modalities(mdata)
    for k, name in enumerate(NAMES):
        cells, *bars = figure.axes[4 * k : 4 * k + 4]
        (note,) = cells.texts
        stability, followed = note.get_text().split("\n")
        assert stability == f"stability {get.stability(mdata).loc[name, 'score']:.2f}"
        assert followed.startswith(get.associations(mdata).loc[name].index[0])
        for axis, modality in zip(bars, MODALITIES, strict=True):
            assert axis.get_title() == f"{modality}: {100 * measured.loc[name, modality]:z.1f} % of deviance"
            assert axis.title.get_window_extent().y1 <= note.get_window_extent().y0
    assert all(axis.get_tightbbox().x1 <= figure.bbox.width for axis in figure.axes)


def test_rotated_tiles_name_the_modalities_alone(joint_assessed: MuData) -> None:
    axes = pl.factors(joint_assessed, [1], rotation="varimax", show=False).axes
    assert [axis.get_title() for axis in axes[1:4]] == MODALITIES
    assert axes[0].get_title(loc="left") == "Factor 1 (varimax)"


def test_deviance_of_all_together(joint: MuData) -> None:
    (axis,) = pl.explained_deviance(joint, show=False)
    assert [bar.get_height() for bar in axis.patches] == pytest.approx(
        (100 * joint.uns["ldvae"]["explained_deviance"]).tolist()
    )
    assert axis.get_ylabel() == "explained deviance (%)\nheld-out cells"
    total = f"all factors and covariates: {100 * joint.uns['ldvae']['total_explained_deviance']:.1f} %"
    assert set(texts_of(axis.get_legend().get_texts())) == {total, "each factor"}


def test_deviance_as_it_was_measured(joint_assessed: MuData) -> None:
    axes, frame = pl.explained_deviance(joint_assessed, show=False), get.explained_deviance(joint_assessed)
    for axis, modality in zip(axes, MODALITIES, strict=True):
        assert [bar.get_height() for bar in axis.patches] == pytest.approx((100 * frame[modality]).tolist())
        cells = f"{frame.attrs['n_cells'][modality]} held-out cells, 25 % of their counts"
        assert axis.get_ylabel() == f"explained deviance of {modality} (%)\n{cells}"
        total, base = (100 * frame.attrs[part][modality] for part in ("total", "base"))
        assert f"all factors and covariates: {total:.1f} %" in texts_of(axis.get_legend().get_texts())
        (line,) = [line for line in axis.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(line.get_ydata(), base + 100 * frame[modality].cumsum())


def test_history_stability_and_numbers_of_factors(joint_assessed: MuData) -> None:
    history = pl.history(joint_assessed, show=False)
    np.testing.assert_array_equal(history.lines[0].get_ydata(), get.history(joint_assessed)["elbo"])
    stability = pl.stability(joint_assessed, show=False)
    score = get.stability(joint_assessed)["score"]
    assert [bar.get_height() for bar in stability.patches] == pytest.approx(score.tolist())
    pairs = joint_assessed.uns["ldvae_stability"]["replication"]
    np.testing.assert_allclose(stability.collections[0].get_offsets()[:, 1], pairs.ravel())
    _, mean_cosine, _ = pl.n_latent(joint_assessed, show=False)
    np.testing.assert_allclose(mean_cosine.lines[0].get_ydata(), get.n_latent(joint_assessed)["stability"])


@pytest.mark.parametrize("plot", [pl.loadings_heatmap, pl.loadings_scatter, pl.covariate_effects])
def test_others_are_of_one_modality(plot: Callable[..., object], joint: MuData) -> None:
    with pytest.raises(ValueError, match=r"^data is a MuData, .* Pass modality, one of 'rna', 'prot', "):
        plot(joint, show=False)
    assert plot(joint, modality="prot", show=False)


def test_bars_are_as_thick_where_one_end_has_no_genes(joint: MuData) -> None:
    """Loadings that all have one sign."""
    mdata, stored = joint.copy(), record.read_joint(joint)
    views = {name: deepcopy(dict(view.content)) for name, view in stored.views.items()}
    loadings = views["prot"]["decoder"]["loadings"]
    loadings[:, 1] = np.abs(loadings[:, 1])
    mdata.uns["ldvae"] = sealed_joint(dict(joint.uns["ldvae"]), stored.keys, {n: sealed(v) for n, v in views.items()})
    axes = pl.loadings(mdata, 2, 4, show=False)
    assert [len(axis.patches) for axis in axes] == [8, 4, 8]
    assert {axis.get_ylim() for axis in axes} == {(8.6, -0.6)}


@pytest.mark.parametrize("holder", ["all", "prot"])
def test_cells_are_placed_by_an_embedding_of_a_modality(holder: str, joint: MuData) -> None:
    """Where the MuData has none; the cells that lack the modality are not drawn."""
    mdata = joint.copy()
    if holder == "all":
        mdata.obsm["X_umap"] = np.random.default_rng(1).normal(size=(120, 2))
    mdata["prot"].obsm["X_umap"] = np.random.default_rng(0).normal(size=(110, 2))
    (points,) = pl.factors(mdata, 2, show=False).axes[0].collections
    drawn = np.ma.getdata(points.get_offsets())
    shown = mdata if holder == "all" else mdata["prot"]
    values = shown.obsm["X_ldvae"][:, 1]
    order = np.argsort(np.abs(values), kind="stable")
    known = np.isfinite(drawn).all(1)
    assert known.sum() == len(values)
    np.testing.assert_allclose(drawn[known], shown.obsm["X_umap"][order])
    np.testing.assert_allclose(points.get_array()[known], values[order])
    with pytest.raises(ValueError, match=r"^basis='X_pca' is not in obsm\. Choose one of .*'X_umap'"):
        pl.factors(mdata, 2, basis="X_pca", show=False)
