from __future__ import annotations

import re
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import matplotlib.image
import mudata
import numpy as np
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from sc_ldvae import get, pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

LONG_NAMES = (
    "ENSG00000198763.3-LINC01297-AS1",
    "HLA-DRB5*01:01:01:02",
    "RP11-706O15.5",
    "MT-ND2-antisense-readthrough",
)

PLOTS = [pl.loadings, pl.history, pl.loadings_heatmap, pl.loadings_scatter, pl.covariate_effects]
each_plot = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)


@pytest.fixture
def n_shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each call of `plt.show`, by the number of figures there are."""
    shown: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.get_fignums())))
    return shown


@pytest.fixture(scope="module")
def wide(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    """30 factors of genes with names as long as they come."""
    adata = simulated.copy()
    adata.var_names = [f"{LONG_NAMES[i % len(LONG_NAMES)]}_{i}" for i in range(60)]
    fit_quickly(adata, 30)
    return adata


def labels_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def extents(figure: Figure) -> list[Bbox]:
    """Of everything that belongs to each of the axes, as it is drawn."""
    figure.canvas.draw()
    return [axis.get_tightbbox() for axis in figure.axes]


def assert_all_inside(figure: Figure) -> None:
    for axis, box in zip(figure.axes, extents(figure), strict=True):
        assert box.x0 >= 0, axis
        assert box.y0 >= 0, axis
        assert box.x1 <= figure.bbox.width, axis
        assert box.y1 <= figure.bbox.height, axis


@pytest.mark.parametrize("n_genes", [1, 4, 10])
@pytest.mark.parametrize("by", ["bound", "loading"])
def test_bars_are_the_top_genes(n_genes: int, by: str, fitted: AnnData) -> None:
    axes = pl.loadings(fitted, n_genes=n_genes, by=by, show=False)
    assert len(axes) == 3
    for k, axis in enumerate(axes):
        loadings = get.loadings(fitted).iloc[:, k].sort_values(ascending=False)
        genes = get.top_genes(fitted, n_genes, by=by).loc[f"ldvae{k + 1}"].index
        expected = list(loadings[loadings.index.isin(genes)].items())
        assert labels_of(axis) == [gene for gene, _ in expected]
        bars = axis.patches
        assert [bar.get_width() for bar in bars] == pytest.approx([value for _, value in expected], rel=1e-6)
        assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx(axis.get_yticks())
        assert all(bar.get_x() == 0 for bar in bars)
        tops = axis.transData.transform([(0, tick) for tick in axis.get_yticks()])[:, 1]
        assert (np.diff(tops) < 0).all()


def test_all_bars_lie_within_the_axes(fitted: AnnData) -> None:
    for axis in pl.loadings(fitted, show=False):
        low, high = axis.get_xlim()
        widths = [bar.get_width() for bar in axis.patches]
        assert low < min(widths) < 0 < max(widths) < high
        bottom, top = axis.get_ylim()
        assert all(top < bar.get_y() < bar.get_y() + bar.get_height() < bottom for bar in axis.patches)


def test_titles_and_axis_labels(fitted: AnnData) -> None:
    explained = get.factors(fitted)["explained_deviance"]
    for k, axis in enumerate(pl.loadings(fitted, show=False)):
        assert axis.get_title().splitlines()[0] == f"Factor {k + 1}"
        assert f"{100 * explained.iloc[k]:.1f}%" in axis.get_title().replace(" %", "%")
        assert "deviance" in axis.get_title()
        label = " ".join(axis.get_xlabel().split())
        assert label.startswith("loading")
        assert re.search(r"\b(log|ln)\b", label)
        assert "per unit" in label


@pytest.mark.parametrize(
    ("factors", "numbers"),
    [
        pytest.param([3, 1], [3, 1], id="numbers"),
        pytest.param(["ldvae2"], [2], id="name"),
        pytest.param(2, [2], id="one-number"),
        pytest.param("ldvae3", [3], id="one-name"),
        pytest.param(np.int64(2), [2], id="one-numpy-number"),
        pytest.param(np.array([1, 2]), [1, 2], id="array"),
        pytest.param(None, [1, 2, 3], id="all"),
    ],
)
def test_factors_are_chosen(factors: object, numbers: list[int], fitted: AnnData) -> None:
    axes = pl.loadings(fitted, factors, show=False)
    assert [axis.get_title().split()[:2] for axis in axes] == [["Factor", str(number)] for number in numbers]
    for axis, number in zip(axes, numbers, strict=True):
        assert labels_of(axis)[0] == get.loadings(fitted).iloc[:, number - 1][labels_of(axis)].idxmax()
        assert set(labels_of(axis)) == set(get.top_genes(fitted, factors=[number]).index.get_level_values("gene"))


def test_key_names_the_fit(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(simulated, 2, key_added="foo", copy=True)
    axes = pl.loadings(adata, ["foo2"], key="foo", show=False)
    assert axes[0].get_title().splitlines()[0] == "Factor 2"
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit"):
        pl.loadings(adata, show=False)


@each_plot
def test_modality_of_a_mudata(plot: Callable[..., object], fitted: AnnData) -> None:
    mdata = mudata.MuData({"rna": fitted.copy()})
    assert plot(mdata, modality="rna", show=False) is not None
    with pytest.raises(ValueError, match=r"^data is a MuData, and this"):
        plot(mdata, show=False)


@pytest.mark.parametrize(("factors", "error"), [([4], "holds 4"), (["foo1"], "holds 'foo1'"), (0, "holds 0")])
def test_unknown_factors_are_refused(factors: object, error: str, fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^factors {error}, but factors are 1 to 3"):
        pl.loadings(fitted, factors, show=False)
    assert not plt.get_fignums()


def test_n_genes_below_one_is_refused(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^n_genes must be at least 1"):
        pl.loadings(fitted, n_genes=0, show=False)


@pytest.mark.parametrize(
    ("ncols", "columns", "rows"), [(1, 1, 3), (2, 2, 2), (3, 3, 1), (5, 3, 1)], ids=["one", "two", "three", "more"]
)
def test_ncols_lays_out_the_panels(ncols: int, columns: int, rows: int, fitted: AnnData) -> None:
    axes = pl.loadings(fitted, ncols=ncols, show=False)
    assert len(axes[0].figure.axes) == 3
    specs = [axis.get_subplotspec() for axis in axes]
    assert (specs[0].get_gridspec().ncols, specs[0].get_gridspec().nrows) == (columns, rows)
    assert [(spec.rowspan.start, spec.colspan.start) for spec in specs] == [divmod(k, columns) for k in range(3)]


@pytest.mark.parametrize("n_factors", [1, 2, 7, 30])
def test_any_number_of_factors_of_genes_with_long_names(n_factors: int, wide: AnnData) -> None:
    axes = pl.loadings(wide, range(1, n_factors + 1), show=False)
    figure = axes[0].figure
    assert len(plt.get_fignums()) == 1
    assert len(axes) == len(figure.axes) == n_factors
    assert axes[-1].get_title().splitlines()[0] == f"Factor {n_factors}"
    assert_all_inside(figure)
    # Pixels that the names leave for the bars.
    assert all(axis.get_window_extent().width > 60 for axis in axes)


def test_panels_do_not_overlap(wide: AnnData) -> None:
    for one, other in combinations(extents(pl.loadings(wide, range(1, 8), show=False)[0].figure), 2):
        assert not one.overlaps(other)


def test_gene_labels_do_not_overlap_each_other(fitted: AnnData) -> None:
    figure = pl.loadings(fitted, show=False)[0].figure
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.get_yticklabels()]
        # A font's box is a little taller than its letters.
        assert all(upper.y0 > lower.y1 - 0.2 * lower.height for upper, lower in pairwise(boxes))


@pytest.mark.parametrize("convert", [np.asarray, list, tuple], ids=["array", "list", "tuple"])
def test_given_axes_are_drawn_on(convert: Callable[..., object], fitted: AnnData) -> None:
    figure, grid = plt.subplots(1, 3)
    axes = pl.loadings(fitted, ax=convert(grid), show=False)
    assert axes == list(grid)
    assert len(plt.get_fignums()) == 1
    assert all(axis.patches for axis in figure.axes)


def test_one_given_axes(fitted: AnnData) -> None:
    _, axis = plt.subplots()
    assert pl.loadings(fitted, 2, ax=axis, show=False) == [axis]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_wrong_number_of_axes_is_refused(n: int, fitted: AnnData) -> None:
    _, grid = plt.subplots(1, n, squeeze=False)
    with pytest.raises(ValueError, match=rf"^ax(es)? holds {n} axes, but 3 panels are to be drawn"):
        pl.loadings(fitted, ax=grid, show=False)
    assert not any(axis.patches for axis in grid.flat)


def test_refused_axes_are_called_as_the_argument(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^ax holds"):
        pl.loadings(fitted, ax=plt.subplots(1, 2)[1], show=False)
    with pytest.raises(ValueError, match=r"^ax holds"):
        pl.history(fitted, ax=plt.subplots(1, 2)[1], show=False)


@each_plot
def test_show_shows_and_returns_nothing(plot: Callable[..., object], fitted: AnnData, n_shown: list[int]) -> None:
    assert plot(fitted, show=True) is None
    assert n_shown == [1]


@each_plot
def test_no_show_returns_axes(plot: Callable[..., object], fitted: AnnData, n_shown: list[int]) -> None:
    result = plot(fitted, show=False)
    assert all(isinstance(axis, Axes) for axis in np.ravel(result))
    assert n_shown == []


@pytest.fixture(params=[True, False], ids=["autoshow", "no-autoshow"])
def autoshow(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = sc.settings.autoshow
    sc.settings.autoshow = request.param
    yield request.param
    sc.settings.autoshow = before


@each_plot
def test_show_follows_scanpy_by_default(
    plot: Callable[..., object], autoshow: bool, fitted: AnnData, n_shown: list[int]
) -> None:
    assert (plot(fitted) is None) == autoshow
    assert len(n_shown) == autoshow


@each_plot
@pytest.mark.parametrize("as_text", [False, True], ids=["path", "text"])
def test_save_writes_the_picture(
    as_text: bool, plot: Callable[..., object], fitted: AnnData, tmp_path: Path, n_shown: list[int]
) -> None:
    path = tmp_path / "plot.png"
    plot(fitted, show=False, save=str(path) if as_text else path)
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].min() < 0.5 < pixels[..., :3].max()
    assert n_shown == []


def test_save_from_a_subfigure(fitted: AnnData, tmp_path: Path) -> None:
    left, _ = plt.figure(figsize=(8, 3)).subfigures(1, 2)
    pl.loadings(fitted, ax=left.subplots(1, 3), show=False, save=tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_save_holds_the_whole_long_names(wide: AnnData, tmp_path: Path) -> None:
    pl.loadings(wide, [1, 2], show=False, save=tmp_path / "plot.png")
    pixels = matplotlib.image.imread(tmp_path / "plot.png")[..., :3].min(-1)
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 1


@each_plot
def test_without_counts(plot: Callable[..., object], fitted: AnnData, unchanged: Callable) -> None:
    adata = fitted.copy()
    adata.X = None
    with unchanged(adata):
        assert plot(adata, show=False) is not None


@each_plot
def test_no_fit_is_refused(plot: Callable[..., object], simulated: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit"):
        plot(simulated, show=False)
    assert not plt.get_fignums()


@each_plot
def test_style_of_other_figures_is_left_alone(plot: Callable[..., object], fitted: AnnData) -> None:
    before = dict(plt.rcParams)
    plot(fitted, show=False)
    assert dict(plt.rcParams) == before


def test_history_draws_the_frame(fitted: AnnData) -> None:
    frame = get.history(fitted)
    axis = pl.history(fitted, show=False)
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    assert len(lines) == 3
    np.testing.assert_array_equal(lines["training"], np.column_stack([frame.index, frame["elbo"]]))
    np.testing.assert_array_equal(lines["held out"], np.column_stack([frame.index, frame["elbo_held_out"]]))
    best = frame.attrs["best_epoch"]
    (label,) = lines.keys() - {"training", "held out"}
    assert label.startswith("best")
    assert label.endswith(f"epoch {best}")
    np.testing.assert_array_equal(lines[label], [[best, frame.loc[best, "elbo_held_out"]]])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["training", "held out", label]


def test_history_names_axes_and_units(fitted: AnnData) -> None:
    axis = pl.history(fitted, show=False)
    assert axis.get_xlabel() == "epoch"
    assert "ELBO" in axis.get_ylabel()
    assert "nats" in axis.get_ylabel()
    assert_all_inside(axis.figure)


def test_epochs_are_whole_numbers(fitted: AnnData) -> None:
    axis = pl.history(fitted, show=False)
    axis.figure.canvas.draw()
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    assert len(ticks) > 1
    assert all(tick == round(tick) for tick in ticks)


def test_history_without_held_out_cells(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    axis = pl.history(fit_quickly(simulated, train_size=1.0, copy=True), show=False)
    assert [line.get_label() for line in axis.lines] == ["training"]


def test_history_on_given_axes(fitted: AnnData) -> None:
    _, axis = plt.subplots()
    assert pl.history(fitted, ax=axis, show=False) is axis
    assert len(plt.get_fignums()) == 1
