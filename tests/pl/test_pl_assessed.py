"""Pictures of explained deviance, stability and numbers of factors: what is drawn, where, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.image
import mudata
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer

from sc_ldvae import get, pl, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

PLOTS = [pl.explained_deviance, pl.stability, pl.n_latent]
each_plot = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)


def one_line(text: str) -> str:
    return " ".join(text.split())


def texts_of(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def legend_of(axis: Axes) -> list[str]:
    return texts_of(axis.get_legend().get_texts())


def heights_of(axis: Axes) -> list[float]:
    (bars,) = [container for container in axis.containers if isinstance(container, BarContainer)]
    return [bar.get_height() for bar in bars]


def lines_at(axis: Axes) -> dict[float, str]:
    """Levels of the horizontal lines, with their styles."""
    return {line.get_ydata()[0]: line.get_linestyle() for line in axis.lines if len(set(line.get_ydata())) == 1}


def test_shares_of_factors(assessed: AnnData) -> None:
    shares, _ = pl.explained_deviance(assessed, show=False)
    frame = get.explained_deviance(assessed)
    assert heights_of(shares) == pytest.approx((100 * frame["share"]).tolist())
    (line,) = [line for line in shares.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([[1, 2, 3], 100 * frame["cumulative"]]))
    total = 100 * frame.attrs["total"]
    assert [style for level, style in lines_at(shares).items() if level == pytest.approx(total, rel=1e-12)] == ["--"]
    base = frame.attrs["base"]
    lines = ["factors up to this", f"without factors: {100 * base:.1f} %", f"all factors and covariates: {total:.1f} %"]
    assert legend_of(shares) == [*lines, "each factor"]
    # From what covariates explain, bar by bar, to the total.
    assert [style for level, style in lines_at(shares).items() if level == 100 * base] == [":"]
    heights = np.diff(line.get_ydata(), prepend=100 * base)
    np.testing.assert_allclose(heights, heights_of(shares), atol=1e-9)
    assert line.get_ydata()[-1] == pytest.approx(total, rel=1e-9)
    assert one_line(shares.get_ylabel()) == "explained deviance (%) all 200 cells, 25 % of their counts"
    assert texts_of(shares.get_xticklabels()) == ["1", "2", "3"]


def test_weak_factors_have_their_number(assessed: AnnData) -> None:
    adata = assessed.copy()
    result = adata.uns["ldvae_explained_deviance"]
    result["share"] = np.array([0.1234, 0.0042, -0.00001])
    # Without one, as results of older versions, it may hold what the tool never found.
    del result["checksum"]
    shares, _ = pl.explained_deviance(adata, show=False)
    assert texts_of(shares.texts) == ["12.3", "0.42", "0.00"]


def test_next_to_nothing_without_factors_has_no_line(assessed: AnnData) -> None:
    adata = assessed.copy()
    result = adata.uns["ldvae_explained_deviance"]
    result["base"] = -0.004
    del result["checksum"]
    shares, _ = pl.explained_deviance(adata, show=False)
    assert ":" not in lines_at(shares).values()
    assert not any(text.startswith("without") for text in legend_of(shares))


def test_marginal_shares_of_older_versions_are_called_so(assessed: AnnData) -> None:
    adata = assessed.copy()
    result = adata.uns["ldvae_explained_deviance"]
    for part in (result, result["groups"]):
        del part["share"]
    del result["checksum"]
    shares, groups = pl.explained_deviance(adata, show=False)
    assert heights_of(shares) == pytest.approx((100 * result["marginal"]).tolist())
    assert "each factor (marginal share)" in legend_of(shares)
    assert ":" not in lines_at(shares).values()
    np.testing.assert_allclose(groups.images[0].get_array(), 100 * result["groups"]["marginal"])


def test_shares_by_group(assessed: AnnData) -> None:
    _, groups = pl.explained_deviance(assessed, show=False)
    frame = get.explained_deviance(assessed, by_group=True)
    shares = 100 * frame[["ldvae1", "ldvae2", "ldvae3"]].to_numpy()
    np.testing.assert_allclose(groups.images[0].get_array(), shares)
    assert texts_of(groups.get_yticklabels()) == [f"batch{i} ({n})" for i, n in enumerate(frame["n_cells"])]
    assert texts_of(groups.get_xticklabels()) == ["1", "2", "3", "all"]
    assert groups.get_ylabel() == "batch"
    written = {tuple(text.get_position()): float(text.get_text()) for text in groups.texts}
    apart = groups.get_xticks()[-1]
    assert apart > 3
    for row, total in enumerate(100 * frame["total"]):
        assert written[apart, row] == pytest.approx(total, abs=0.0501)
        for column in range(3):
            assert written[column, row] == pytest.approx(shares[row, column], abs=0.0501)
    assert len(groups.figure.axes) == 2


def test_groups_of_few_cells_have_no_colour(assessed: AnnData) -> None:
    adata = assessed.copy()
    result = adata.uns["ldvae_explained_deviance"]
    result["groups"] |= {"n_cells": np.array([9, 10]), "share": np.array([[0.8, 0.9, 0.7], [0.1, 0.2, 0.3]])}
    del result["checksum"]
    _, groups = pl.explained_deviance(adata, show=False)
    (image,) = groups.images
    assert image.get_array().mask.tolist() == [[True] * 3, [False] * 3]
    # They have no say in the scale of the others, but their numbers are there.
    assert image.get_clim() == pytest.approx((0, 30))
    np.testing.assert_allclose(image.cmap(np.ma.masked_all(1))[0, :3], 0.92, atol=0.01)
    assert [text.get_text() for text in groups.texts if text.get_position()[1] == 0][1:] == ["80.0", "90.0", "70.0"]
    assert groups.get_title() == "explained deviance (%) by group (cells)\ngrey: fewer than 10 cells"
    _, groups = pl.explained_deviance(assessed, show=False)
    assert groups.get_title() == "explained deviance (%) by group (cells)"


def test_small_heat_maps_have_a_colour_bar_in_place_of_numbers(assessed: AnnData) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(2, 1))
    _, groups = pl.explained_deviance(assessed, ax=axes, show=False)
    assert len(groups.texts) == 2
    assert len(figure.axes) == 3


@pytest.mark.parametrize(("train_size", "cells"), [(0.9, "held-out cells"), (1.0, "cells of the fit")])
def test_shares_that_the_fit_measured(
    train_size: float, cells: str, simulated: AnnData, fit_quickly: Callable[..., AnnData]
) -> None:
    adata = fit_quickly(simulated, train_size=train_size, copy=True)
    (axis,) = pl.explained_deviance(adata, show=False)
    assert heights_of(axis) == pytest.approx((100 * adata.uns["ldvae"]["explained_deviance"]).tolist())
    total = 100 * adata.uns["ldvae"]["total_explained_deviance"]
    assert any(level == pytest.approx(total, rel=1e-12) for level in lines_at(axis))
    assert all(line.get_marker() != "o" for line in axis.lines)
    assert one_line(axis.get_ylabel()) == f"explained deviance (%) {cells}"


def test_stability_of_factors(assessed: AnnData) -> None:
    axis = pl.stability(assessed, show=False)
    stored = assessed.uns["ldvae_stability"]
    assert heights_of(axis) == pytest.approx(stored["score"].tolist())
    pairs, span = (dots.get_offsets() for dots in axis.collections)
    np.testing.assert_array_equal(pairs[:, 0].round(), [1, 2, 3] * 2)
    assert len(np.unique(pairs[:, 0])) == 6
    np.testing.assert_allclose(pairs[:, 1], np.clip(stored["replication"], 0, 1).ravel())
    np.testing.assert_allclose(span, np.column_stack([[1, 2, 3], stored["span"]]))
    assert {0.5, 0.8} <= set(lines_at(axis))
    assert axis.get_ylim() == (0, 1)
    assert [one_line(text) for text in legend_of(axis)] == [
        "score, extrapolated to all cells (Spearman-Brown)",
        "pair of refits to halves of the cells",
        "span",
    ]
    assert one_line(axis.get_ylabel()) == "cosine of loadings 4 refits, halves of the cells"
    assert axis.get_xlabel() == "factor"


def test_flags_stand_over_their_factor(assessed: AnnData) -> None:
    adata = assessed.copy()
    adata.uns["ldvae_stability"] |= {"splits": np.array([1, 0, 1]), "merges": np.array([0, 0, 1])}
    del adata.uns["ldvae_stability"]["checksum"]
    axis = pl.stability(adata, show=False)
    flags = {text.xy[0]: text.get_text() for text in axis.texts if text.get_text()}
    assert flags == {1: "splits", 3: "splits, merges"}
    figure = axis.figure
    figure.canvas.draw()
    assert all(text.get_window_extent().y0 >= axis.get_window_extent().y1 for text in axis.texts if text.get_text())
    box = axis.get_tightbbox()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.height
    assert axis.get_legend().get_window_extent().y1 <= axis.xaxis.label.get_window_extent().y0


@pytest.mark.parametrize("subsample", ["bootstrap", ""])
def test_scores_that_are_not_extrapolated_say_nothing_of_it(subsample: str, assessed: AnnData) -> None:
    adata = assessed.copy()
    adata.uns["ldvae_stability"]["params"] |= {"subsample": subsample}
    del adata.uns["ldvae_stability"]["checksum"]
    assert legend_of(pl.stability(adata, show=False)) == ["score", "pair of refits", "span"]


def test_rotation_of_the_stability_is_named(assessed: AnnData) -> None:
    adata = tl.stability(assessed, 2, rotation="varimax", key_added="turned", copy=True, progress=False)
    assert pl.stability(adata, key_added="turned", show=False).get_xlabel() == "factor (varimax)"


def test_numbers_of_factors(assessed: AnnData) -> None:
    frame = get.n_latent(assessed)
    elbo, stability, counts = pl.n_latent(assessed, show=False)
    (errors,) = [container for container in elbo.containers if isinstance(container, ErrorbarContainer)]
    np.testing.assert_allclose(errors.lines[0].get_xydata(), np.column_stack([[1, 2, 4], -frame["elbo_behind"]]))
    ends = np.array([segment[:, 1] for segment in errors.lines[2][0].get_segments()])
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * frame["elbo_behind_se"], atol=1e-12)
    np.testing.assert_allclose(stability.lines[0].get_ydata(), frame["stability"])
    lines = {line.get_label(): line.get_xydata() for line in counts.lines}
    np.testing.assert_array_equal(lines["all"][:, 1], lines["all"][:, 0])
    np.testing.assert_allclose(lines["active"], np.column_stack([[1, 2, 4], frame["n_active"]]))
    np.testing.assert_allclose(lines["come back (cosine 0.5)"], np.column_stack([[1, 2, 4], frame["n_stable"]]))
    for axis in (elbo, stability, counts):
        assert [frame.attrs["recommended"]] * 2 in [list(line.get_xdata()) for line in axis.lines]
    assert one_line(elbo.figure.get_suptitle()) == frame.attrs["reason"]


def test_reason_is_wrapped_to_the_figure(assessed: AnnData) -> None:
    figure = pl.n_latent(assessed, show=False)[0].figure
    figure.canvas.draw()
    assert figure._suptitle.get_window_extent().x1 < figure.bbox.width


def test_given_axes_have_no_reason(assessed: AnnData) -> None:
    figure, axes = plt.subplots(1, 3)
    assert pl.n_latent(assessed, ax=axes, show=False) == list(axes)
    assert figure._suptitle is None


@pytest.mark.parametrize(("plot", "n"), [(pl.explained_deviance, 2), (pl.stability, 1), (pl.n_latent, 3)])
def test_wrong_number_of_axes_is_refused(plot: Callable[..., object], n: int, assessed: AnnData) -> None:
    _, axes = plt.subplots(1, 4)
    with pytest.raises(ValueError, match=rf"^ax holds 4 axes, but {n} panels are to be drawn"):
        plot(assessed, ax=axes, show=False)


@each_plot
def test_shown_saved_or_returned(
    plot: Callable[..., object],
    assessed: AnnData,
    unchanged: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plt, "show", lambda: None)
    adata = assessed.copy()
    adata.X = None
    with unchanged(adata):
        assert plot(adata, show=True) is None
        drawn = plot(mudata.MuData({"rna": adata}), modality="rna", show=False, save=tmp_path / "plot.png")
    assert all(isinstance(axis, Axes) for axis in np.ravel(drawn))
    assert matplotlib.image.imread(tmp_path / "plot.png").min() < 0.5


@pytest.mark.parametrize(
    ("plot", "error"),
    [
        (pl.explained_deviance, r"uns\['mine'\] holds no result of sc_ldvae\.tl\.explained_deviance"),
        (pl.stability, r"uns\['mine'\] holds no result of sc_ldvae\.tl\.stability"),
        (pl.n_latent, r"uns\['mine'\] holds no result of sc_ldvae\.tl\.select_n_latent"),
    ],
)
def test_missing_results_are_refused(plot: Callable[..., object], error: str, assessed: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        plot(assessed, key_added="mine", show=False)
    assert not plt.get_fignums()
