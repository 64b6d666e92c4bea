from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from sc_ldvae import get, pl
from sc_ldvae.record._sealed import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LN = "loading (ln fold change per unit of the factor)"
LOG2 = "loading (log2 fold change per standard deviation of the factor)"
OPTIONS = {"rotation": "varimax", "per": "sd", "log2": True}
QVALUES = np.array([0.2, 1e-3, 0.0, 0.04, 1e-7])
KINDS = ["bar", "rank", "dot"]


@pytest.fixture(scope="module")
def plain(fitted: AnnData, reseal: Callable[[AnnData], None]) -> AnnData:
    """A fit without errors."""
    adata = fitted.copy()
    del adata.uns["ldvae"]["loadings_covariance"]
    reseal(adata)
    return adata


@pytest.fixture
def known_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and q-values as they are drawn, in turn from a short list."""
    top_genes = get.top_genes

    def with_errors(*args: Any, **kwargs: Any) -> pd.DataFrame:
        table = top_genes(*args, **kwargs)
        return table.assign(se=np.linspace(0.01, 0.1, len(table)), qvalue=np.resize(QVALUES, len(table)))

    monkeypatch.setattr(get, "top_genes", with_errors)


@pytest.fixture(scope="module")
def wide(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    """30 factors of genes with names of 40 letters."""
    adata = simulated.copy()
    adata.var_names = [f"GENE-WITH-FORTY-LETTERS-IN-ITS-NAME-{i:04d}" for i in range(60)]
    fit_quickly(adata, 30)
    return adata


def rows_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def one_line(label: str) -> str:
    return " ".join(label.split())


def names_on(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def dots_on(axis: Axes) -> list[PathCollection]:
    return [artist for artist in axis.collections if isinstance(artist, PathCollection)]


def lightness(colour: str) -> float:
    return min(to_rgb(colour))


def box_of(name: Annotation) -> Bbox:
    """Without the line that leads to it."""
    return Text.get_window_extent(name)


def assert_names_apart_and_inside(axis: Axes) -> None:
    axis.figure.canvas.draw()
    frame = axis.get_window_extent()
    boxes = [box_of(text) for text in axis.texts]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_the_two_directions_have_their_colours(plain: AnnData) -> None:
    (axis,) = pl.loadings(plain, 1, 5, show=False)
    colours = [to_hex(bar.get_facecolor()) for bar in axis.patches]
    assert len(set(colours)) == 2
    assert colours == [colours[0]] * 5 + [colours[-1]] * 5


@pytest.mark.parametrize("kind", ["bar", "dot"])
def test_whiskers_are_95_percent_intervals(kind: str, fitted: AnnData) -> None:
    loadings, errors = get.loadings(fitted, **OPTIONS), get.loadings_se(fitted, **OPTIONS)
    for k, axis in enumerate(pl.loadings(fitted, n_genes=4, kind=kind, show=False, **OPTIONS)):
        (whiskers,) = [artist for artist in axis.collections if isinstance(artist, LineCollection)]
        genes = rows_of(axis)
        low, high = np.array([segment[:, 0] for segment in whiskers.get_segments()]).T
        np.testing.assert_allclose((low + high) / 2, loadings.iloc[:, k][genes], rtol=1e-5)
        np.testing.assert_allclose((high - low) / 2, 1.96 * errors.iloc[:, k][genes], rtol=1e-4)
        np.testing.assert_array_equal([segment[0, 1] for segment in whiskers.get_segments()], axis.get_yticks())


@pytest.mark.usefixtures("known_errors")
def test_bars_above_the_level_of_q_are_pale(fitted: AnnData) -> None:
    (axis,) = pl.loadings(fitted, 1, 5, show=False)
    bars = {name: to_hex(bar.get_facecolor()) for name, bar in zip(rows_of(axis), axis.patches, strict=True)}
    table = get.top_genes(fitted, 5, factors=[1]).droplevel("factor")
    for _, genes in table.groupby("direction"):
        pale, full = ({bars[gene] for gene in genes.index[(genes["qvalue"] > 0.05) == doubtful]} for doubtful in (1, 0))
        assert len(pale) == len(full) == 1
        assert lightness(*pale) > lightness(*full) + 0.3
    legend = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert legend == ["95 % interval", "q > 0.05"]


@pytest.mark.usefixtures("known_errors")
def test_areas_of_dots_follow_the_q_value(fitted: AnnData) -> None:
    (axis,) = pl.loadings(fitted, 1, 5, kind="dot", show=False)
    (dots,) = dots_on(axis)
    table = get.top_genes(fitted, 5, factors=[1]).droplevel("factor").loc[rows_of(axis)]
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([table["loading"], axis.get_yticks()]), rtol=1e-6)
    digits = np.minimum(-np.log10(np.maximum(table["qvalue"], 1e-300)), 10)
    slope, least = np.polyfit(digits, dots.get_sizes(), 1)
    assert slope > 1
    assert least > 1
    np.testing.assert_allclose(dots.get_sizes(), least + slope * digits, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_without_errors(kind: str, plain: AnnData) -> None:
    axes = pl.loadings(plain, n_genes=4, kind=kind, show=False)
    assert not axes[0].figure.legends
    for axis in axes:
        assert not any(isinstance(artist, LineCollection) for artist in axis.collections)
    if kind == "dot":
        assert len({size for axis in axes for size in dots_on(axis)[0].get_sizes()}) == 1


def test_given_axes_get_no_legend(fitted: AnnData) -> None:
    figure, axis = plt.subplots()
    pl.loadings(fitted, 1, kind="dot", ax=axis, show=False)
    assert not figure.legends


@pytest.mark.parametrize("n_genes", [1, 10, 30])
def test_ranks_are_of_all_genes(n_genes: int, fitted: AnnData) -> None:
    axes = pl.loadings(fitted, n_genes=n_genes, kind="rank", show=False)
    assert len({axis.get_ylim() for axis in axes}) == 1
    for k, axis in enumerate(axes):
        loadings = get.loadings(fitted).iloc[:, k].sort_values(ascending=False)
        everyone, ends = (dots.get_offsets() for dots in dots_on(axis))
        expected = np.column_stack([np.arange(1, 61), loadings])
        np.testing.assert_allclose(everyone[np.argsort(everyone[:, 0])], expected, rtol=1e-6)
        low, high = axis.get_ylim()
        assert low < loadings.min() < loadings.max() < high
        table = get.top_genes(fitted, n_genes).loc[loadings.name]
        np.testing.assert_allclose(ends[:, 1], table["loading"], rtol=1e-6)
        assert {text.get_text(): text.xy for text in axis.texts} == {
            gene: pytest.approx((1 + loadings.index.get_loc(gene), loadings[gene])) for gene in table.index
        }
        assert one_line(axis.get_ylabel()) == LN


@pytest.mark.parametrize(("n_genes", "height"), [(1, None), (10, None), (10, 4)], ids=["one", "ten", "low"])
def test_names_of_ranks_are_apart_and_in_order(n_genes: int, height: float | None, wide: AnnData) -> None:
    ax = None if height is None else plt.subplots(1, 3, figsize=(15, height))[1]
    for axis in pl.loadings(wide, [1, 2, 30], n_genes, kind="rank", ax=ax, show=False):
        assert_names_apart_and_inside(axis)
        for right in (False, True):
            texts = [text for text in axis.texts if (text.get_ha() == "right") == right]
            assert len(texts) == n_genes
            levels = [box_of(text).y0 for text in sorted(texts, key=lambda text: text.xy[0])]
            assert (np.diff(levels) < 0).all()
            # In the empty corners: over the curve on the left, under it on the right.
            curve = dots_on(axis)[0].get_offsets()
            for text in texts:
                box = box_of(text).transformed(axis.transData.inverted())
                beside = curve[(curve[:, 0] > box.x0) & (curve[:, 0] < box.x1), 1]
                assert (beside > box.y1).all() if right else (beside < box.y0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_and_unit_of_panels(kind: str, fitted: AnnData) -> None:
    expected = get.loadings(fitted, [2, 1], **OPTIONS)
    axes = pl.loadings(fitted, [2, 1], kind=kind, show=False, **OPTIONS)
    assert [axis.get_title() for axis in axes] == ["Factor 2 (varimax)", "Factor 1 (varimax)"]
    for k, axis in enumerate(axes):
        assert one_line(axis.get_ylabel() if kind == "rank" else axis.get_xlabel()) == LOG2
        largest = expected.iloc[:, k].idxmax()
        if kind == "rank":
            assert dots_on(axis)[0].get_offsets()[:, 1].max() == pytest.approx(expected.iloc[:, k].max())
        else:
            assert rows_of(axis)[0] == largest


def test_heat_map_shows_the_loadings_of_the_top_genes(fitted: AnnData) -> None:
    axis = pl.loadings_heatmap(fitted, 4, factors=[3, 1], show=False, **OPTIONS)
    frame = get.loadings(fitted, [3, 1], **OPTIONS)
    genes = rows_of(axis)
    assert sorted(genes) == sorted(get.top_genes(fitted, 4, factors=[3, 1], **OPTIONS).index.unique("gene"))
    (image,) = axis.images
    np.testing.assert_allclose(image.get_array(), frame.loc[genes], rtol=1e-6)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["3", "1"]
    assert axis.get_xlabel() == "factor (varimax)"
    assert one_line(axis.figure.axes[1].get_ylabel()) == LOG2


def test_genes_of_a_heat_map_stand_with_their_factor(fitted: AnnData) -> None:
    frame = get.loadings(fitted)
    genes = rows_of(pl.loadings_heatmap(fitted, show=False))
    own = frame.loc[genes].abs().to_numpy().argmax(1)
    assert (np.diff(own) >= 0).all()
    for k in range(3):
        assert (np.diff(frame.loc[genes].to_numpy()[own == k, k]) <= 0).all()


def test_colours_of_a_heat_map_are_symmetric_and_robust(plain: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = plain.copy()
    adata.uns["ldvae"]["decoder"]["loadings"][5, 1] = 1_000
    reseal(adata)
    low, high = pl.loadings_heatmap(adata, genes=adata.var_names, show=False).images[0].get_clim()
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(adata.uns["ldvae"]["decoder"]["loadings"]), 99))
    assert high < 10


def test_clustered_heat_map(fitted: AnnData) -> None:
    frame = get.loadings(fitted)
    axis = pl.loadings_heatmap(fitted, genes=fitted.var_names, order="clustered", show=False)
    numbers = [int(label.get_text()) - 1 for label in axis.get_xticklabels()]
    rows = frame.index.get_indexer(rows_of(axis))
    np.testing.assert_allclose(axis.images[0].get_array(), frame.iloc[rows, numbers], rtol=1e-6)
    for order, values in ((rows, frame.to_numpy()), (numbers, frame.to_numpy().T)):
        assert sorted(order) == list(range(len(values)))
        tree = hierarchy.linkage(pdist(values), "average")
        steps = [
            np.linalg.norm(np.diff(values[leaves], axis=0), axis=1).sum()
            for leaves in (order, hierarchy.leaves_list(tree))
        ]
        # Of three factors any order of the leaves can be the best.
        assert steps[0] < steps[1] or len(values) == 3
        # Members of a cluster stand side by side.
        for n_clusters in (2, min(6, len(values))):
            clusters = hierarchy.fcluster(tree, n_clusters, "maxclust")[order]
            assert (np.diff(clusters) != 0).sum() == len(set(clusters)) - 1


@pytest.mark.parametrize(
    ("n_genes", "options"), [(10, {}), (5, {"order": "clustered"}), (1, {"factors": [2]})], ids=["all", "tree", "one"]
)
def test_names_of_a_heat_map_are_legible(n_genes: int, options: dict[str, Any], wide: AnnData) -> None:
    axis = pl.loadings_heatmap(wide, n_genes, show=False, **options)
    figure = axis.figure
    figure.canvas.draw()
    labels = axis.get_yticklabels()
    assert all(label.get_fontsize() >= 6 for label in labels)
    tops = sorted(label.get_window_extent().y0 for label in labels)
    assert (np.diff(tops) > 0.8 * labels[0].get_fontsize() * figure.dpi / 72).all()
    for one in figure.axes:
        box = one.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def test_one_gene_in_a_heat_map(fitted: AnnData) -> None:
    for order in ("factor", "clustered"):
        assert rows_of(pl.loadings_heatmap(fitted, genes=["gene7"], factors=[1], order=order, show=False)) == ["gene7"]


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "rotated"])
def test_scatter_names_the_genes_at_both_ends_of_both_axes(options: dict[str, Any], fitted: AnnData) -> None:
    frame = get.loadings(fitted, ["ldvae3", 1], **options)
    axis = pl.loadings_scatter(fitted, "ldvae3", 1, n_genes=2, show=False, **options)
    least = frame.abs() - 1.96 * get.loadings_se(fitted, ["ldvae3", 1], **options)
    ends = {gene for k in frame for sign in (1, -1) for gene in least[k][sign * frame[k] > 0].nlargest(2).index}
    assert len(ends) > 4
    assert sorted(names_on(axis)) == sorted(ends)
    for text in axis.texts:
        assert text.xy == pytest.approx(tuple(frame.loc[text.get_text()]))
    others, named = (dots.get_offsets() for dots in dots_on(axis))
    np.testing.assert_allclose(named, frame.loc[names_on(axis)], rtol=1e-6)
    np.testing.assert_allclose(others, frame.drop(names_on(axis)), rtol=1e-6)
    suffix, label = (" (varimax)", LOG2) if options else ("", LN)
    assert one_line(axis.get_xlabel()) == f"Factor 3{suffix}: {label}"
    assert one_line(axis.get_ylabel()) == f"Factor 1{suffix}: {label}"


@pytest.mark.parametrize("figsize", [None, (8, 3), (3, 7)], ids=["own", "flat", "tall"])
def test_scatter_has_one_scale(figsize: tuple[float, float] | None, fitted: AnnData) -> None:
    ax = None if figsize is None else plt.subplots(figsize=figsize)[1]
    axis = pl.loadings_scatter(fitted, ax=ax, show=False)
    axis.figure.canvas.draw()
    origin, right, up = axis.transData.transform([(0, 0), (1, 0), (0, 1)])
    assert right[0] - origin[0] == pytest.approx(up[1] - origin[1], rel=1e-6)
    frame = axis.get_window_extent()
    points = axis.transData.transform(np.vstack([[(0, 0)], get.loadings(fitted, [1, 2])]))
    assert frame.x0 < points[:, 0].min() < points[:, 0].max() < frame.x1
    assert frame.y0 < points[:, 1].min() < points[:, 1].max() < frame.y1


def test_scatter_names_chosen_genes(fitted: AnnData) -> None:
    assert names_on(pl.loadings_scatter(fitted, genes=["gene9", "gene2"], show=False)) == ["gene9", "gene2"]
    assert names_on(pl.loadings_scatter(fitted, genes="gene9", show=False)) == ["gene9"]


@pytest.mark.parametrize("data", ["fitted", "wide"])
def test_names_of_a_scatter_are_apart(data: str, request: pytest.FixtureRequest) -> None:
    adata = request.getfixturevalue(data)
    axis = pl.loadings_scatter(adata, n_genes=4 if data == "fitted" else 2, show=False)
    assert_names_apart_and_inside(axis)
    again = pl.loadings_scatter(adata, n_genes=4 if data == "fitted" else 2, show=False)
    assert [text.xyann for text in again.texts] == [text.xyann for text in axis.texts]


@pytest.mark.parametrize("kind", KINDS)
def test_covariate_effects_are_the_ends_of_the_table(kind: str, fitted: AnnData) -> None:
    frame, errors = get.covariate_effects(fitted), get.covariate_effects_se(fitted)
    axes = pl.covariate_effects(fitted, 6, kind=kind, show=False)
    assert [axis.get_title() for axis in axes] == ["batch: batch0", "batch: batch1", "covariate1"]
    units = ["effect (ln fold change to the mean of levels)"] * 2 + ["effect (ln fold change per standard deviation)"]
    for k, axis in enumerate(axes):
        effects = frame.iloc[:, k].sort_values(ascending=False)
        # Those that are largest at the least, in the order of their effects.
        bound = effects.abs() - 1.96 * errors.iloc[:, k]
        ends = [bound[effects > 0].nlargest(6).index, bound[effects < 0].nlargest(6).index]
        expected = effects[[name for end in ends for name in end]].sort_values(ascending=False).index.tolist()
        assert one_line(axis.get_ylabel() if kind == "rank" else axis.get_xlabel()) == units[k]
        if kind == "rank":
            assert sorted(names_on(axis)) == sorted(expected)
        else:
            assert rows_of(axis) == expected
        if kind == "bar":
            assert [bar.get_width() for bar in axis.patches] == pytest.approx(effects[expected].tolist(), rel=1e-6)
    limits = [axis.get_ylim() if kind == "rank" else axis.get_xlim() for axis in axes]
    assert len(set(limits)) == 1


def test_effects_have_their_intervals_where_they_are_known(fitted: AnnData) -> None:
    (axis,) = pl.covariate_effects(fitted, 6, covariate="covariate1", show=False)
    (whiskers,) = axis.containers[1].lines[2]
    lengths = [segment[1, 0] - segment[0, 0] for segment in whiskers.get_segments()]
    errors = get.covariate_effects_se(fitted)["covariate1", ""]
    assert lengths == pytest.approx((2 * 1.96 * errors[rows_of(axis)]).tolist(), rel=1e-5)
    before = fitted.copy()
    del before.uns["ldvae"]["covariate_effects_se"]
    before.uns["ldvae"] = sealed(before.uns["ldvae"])
    (axis,) = pl.covariate_effects(before, 6, covariate="covariate1", show=False)
    effects = get.covariate_effects(before)["covariate1", ""].sort_values(ascending=False)
    assert rows_of(axis) == [*effects.index[:6], *effects.index[-6:]]
    with pytest.raises(ValueError, match="has no errors of its covariate effects"):
        get.covariate_effects_se(before)


def test_effects_of_one_covariate(fitted: AnnData) -> None:
    (axis,) = pl.covariate_effects(fitted, covariate="covariate1", show=False)
    assert axis.get_title() == "covariate1"
    assert len(pl.covariate_effects(fitted, covariate="batch", show=False)) == 2


def test_effects_without_covariates_are_refused(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(simulated, 2, key_added="foo", copy=True)
    with pytest.raises(ValueError, match=r"^uns\['foo'\] has no covariates. Fit with batch_key= or covariates"):
        pl.covariate_effects(adata, key="foo", show=False)


BAD = [
    pytest.param(pl.loadings, {"kind": "box"}, "kind must be 'bar', 'rank' or 'dot', but is 'box'", id="kind"),
    pytest.param(pl.loadings, {"rotation": "quartimax"}, "rotation='quartimax'", id="rotation"),
    pytest.param(pl.loadings, {"per": "cell"}, "per='cell'", id="per"),
    pytest.param(pl.loadings, {"factors": [1, "ldvae1"]}, "factors holds 'ldvae1' more than once", id="factor-twice"),
    pytest.param(pl.loadings, {"factors": []}, "factors is empty", id="no-factor"),
    pytest.param(pl.loadings_heatmap, {"order": "tree"}, "order must be 'factor' or 'clustered'", id="order"),
    pytest.param(pl.loadings_heatmap, {"n_genes": 0}, "n_genes must be at least 1, but is 0", id="heatmap-n_genes"),
    pytest.param(
        pl.loadings_heatmap,
        {"genes": ["CD4"]},
        "genes holds 'CD4', which is not among the 60 genes of the object that have",
        id="gene",
    ),
    pytest.param(pl.loadings_heatmap, {"genes": []}, "genes is empty", id="no-gene"),
    pytest.param(pl.loadings_heatmap, {"genes": ["gene1", "gene1"]}, "genes holds 'gene1' more than once", id="twice"),
    pytest.param(pl.loadings_heatmap, {"factors": []}, "factors is empty", id="heatmap-no-factor"),
    pytest.param(pl.loadings_heatmap, {"cmap": "odd"}, "cmap must be a Colormap .* one, but is 'odd'", id="cmap"),
    pytest.param(pl.loadings_heatmap, {"cmap": 5}, "cmap must be a Colormap .* one, but is 5", id="cmap-number"),
    pytest.param(pl.loadings_heatmap, {"factors": [4]}, "factors holds 4", id="heatmap-factor"),
    pytest.param(pl.loadings_heatmap, {"factors": [2, 2]}, "factors holds 'ldvae2' more than", id="heatmap-twice"),
    pytest.param(pl.loadings_scatter, {"x": 0}, "factors holds 0", id="x"),
    pytest.param(pl.loadings_scatter, {"y": "foo1"}, "factors holds 'foo1'", id="y"),
    pytest.param(pl.loadings_scatter, {"n_genes": 0}, "n_genes must be at least 1, but is 0", id="scatter-n_genes"),
    pytest.param(pl.loadings_scatter, {"genes": ["CD4"]}, "genes holds 'CD4'", id="scatter-gene"),
    pytest.param(pl.covariate_effects, {"covariate": "age"}, "covariate='age' is none of the fit's: 'batch'", id="age"),
    pytest.param(pl.covariate_effects, {"n_genes": 0}, "n_genes must be at least 1, but is 0", id="effects-n_genes"),
    pytest.param(pl.covariate_effects, {"kind": "box"}, "kind must be 'bar'", id="effects-kind"),
]


@pytest.mark.parametrize(("plot", "options", "error"), BAD)
def test_bad_arguments_are_refused(
    plot: Callable[..., object], options: dict[str, Any], error: str, fitted: AnnData
) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        plot(fitted, show=False, **options)
    assert not plt.get_fignums()
