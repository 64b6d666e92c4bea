"""Pictures of what the factors go with, and of the gene sets that they are enriched in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from sc_ldvae import get, pl, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

SOURCES = [f"A_GENE_SET_WITH_A_RATHER_LONG_NAME_{i}" for i in range(12)]


def labels_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def dots_of(axis: Axes) -> PathCollection:
    (dots,) = [one for one in axis.collections if isinstance(one, PathCollection)]
    return dots


def entries_of(axis: Axes, values: Any) -> dict[tuple[str, str], Any]:
    """What the dot of each row and factor has."""
    rows, numbers = labels_of(axis), [label.get_text() for label in axis.get_xticklabels()]
    places = np.asarray(dots_of(axis).get_offsets()).astype(int)
    return {(rows[y], numbers[x]): value for (x, y), value in zip(places, values, strict=True)}


def legend_of(axis: Axes) -> list[str]:
    return [text.get_text() for legend in axis.figure.legends for text in legend.get_texts()]


@pytest.fixture(scope="module")
def enriched(fitted: AnnData, write_enrichment: Callable[..., None]) -> AnnData:
    adata = fitted.copy()
    write_enrichment(adata, SOURCES)
    return adata


def test_areas_are_shares(assessed: AnnData) -> None:
    axis = pl.associations(assessed, [3, 1], show=False)
    table = get.associations(assessed)
    areas = entries_of(axis, dots_of(axis).get_sizes())
    assert len(areas) == 2 * table.index.get_level_values("key").nunique()
    full = {
        150 * row["strength"] ** 2: areas[key, factor[-1]]
        for (factor, key), row in table.iterrows()
        if factor != "ldvae2"
    }
    np.testing.assert_allclose(list(full.values()), list(full), rtol=1e-5, atol=1e-6)
    (largest,) = [legend for legend in axis.figure.legends[0].legend_handles if legend.get_label().endswith("= 1.0")]
    assert largest.get_markersize() ** 2 == pytest.approx(150)


def test_colours_say_what_the_column_is(assessed: AnnData) -> None:
    axis = pl.associations(assessed, show=False)
    for (key, number), color in entries_of(axis, map(to_hex, dots_of(axis).get_facecolors())).items():
        row = get.associations(assessed).loc[f"ldvae{number}", key]
        sign = "#2166ac" if row["statistic"] < 0 else "#b2182b"
        assert color == ("#595959" if row["kind"] == "categorical" else sign)
    assert {"category: η²", "number: rho > 0", "η² or rho² = 0.5"} <= set(legend_of(axis))


def test_the_closest_column_stands_first(assessed: AnnData) -> None:
    closest = get.associations(assessed)["strength"].groupby("key").max().sort_values(ascending=False)
    assert labels_of(pl.associations(assessed, show=False)) == closest.index.tolist()


@pytest.mark.parametrize("keys", [["covariate1", "batch"], ["batch", "covariate1"], "batch"])
def test_some_columns_in_the_order_asked_for(keys: list[str] | str, assessed: AnnData) -> None:
    axis = pl.associations(assessed, keys=keys, show=False)
    assert labels_of(axis) == np.ravel(keys).tolist()
    assert ("number: rho > 0" in legend_of(axis) or "number: rho < 0" in legend_of(axis)) == (keys != "batch")


def test_associations_of_a_joint_fit(joint_assessed: MuData) -> None:
    assert set(labels_of(pl.associations(joint_assessed, show=False))) == {"batch", "age"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"keys": ["gone"]}, "keys holds 'gone', which was not associated", id="key"),
        pytest.param({"keys": ["batch", "batch"]}, "keys holds 'batch' more than once", id="twice"),
        pytest.param({"keys": []}, "keys is empty", id="none"),
        pytest.param({"factors": 9}, "factors holds 9", id="factor"),
        pytest.param({"key_added": "mine"}, r"uns\['mine'\] holds no result of sc_ldvae\.tl\.associate", id="result"),
    ],
)
def test_bad_associations_are_refused(options: dict[str, Any], error: str, assessed: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        pl.associations(assessed, show=False, **options)
    assert not plt.get_fignums()


@pytest.mark.parametrize("n_sources", [1, 2, 100])
def test_sources_with_the_largest_scores_of_any_factor(n_sources: int, enriched: AnnData) -> None:
    axis = pl.enrichment(enriched, n_sources, show=False)
    table = get.enrichment(enriched)
    strongest = table["score"].abs().groupby("factor").nlargest(n_sources).index.get_level_values("source")
    assert sorted(labels_of(axis)) == sorted(set(strongest))
    scores = entries_of(axis, dots_of(axis).get_array())
    assert len(scores) == 3 * len(set(strongest))
    for (source, number), score in scores.items():
        assert score == pytest.approx(table.loc[(f"ldvae{number}", source), "score"])
    # Each source with the factor of its most extreme score, from the largest to the smallest.
    extremes = [max((abs(scores[row, n]), n, scores[row, n]) for n in "123") for row in labels_of(axis)]
    order = [(number, -score) for _, number, score in extremes]
    assert order == sorted(order)


def test_areas_and_rings_say_how_sure_it_is(enriched: AnnData) -> None:
    axis = pl.enrichment(enriched, 12, factors=[2], show=False)
    qvalues = get.enrichment(enriched).loc["ldvae2", "qvalue"]
    areas, rings = (entries_of(axis, values) for values in (dots_of(axis).get_sizes(), dots_of(axis).get_edgecolors()))
    order = sorted(SOURCES, key=lambda source: qvalues[source], reverse=True)
    sizes = [areas[source, "2"] for source in order]
    assert sizes == sorted(sizes)
    assert 6 <= sizes[0] < sizes[-1] <= 60
    ringed = {source for source in SOURCES if rings[source, "2"][3] > 0}
    assert ringed == set(qvalues.index[qvalues <= 0.05])
    assert 0 < len(ringed) < 12
    assert legend_of(axis) == ["q ≤ 0.05", "q = 0.05", "q = 1e-5", "q < 1e-10"]


def test_colours_are_symmetric_around_zero(enriched: AnnData) -> None:
    axis = pl.enrichment(enriched, 100, show=False)
    limit = np.percentile(get.enrichment(enriched)["score"].abs(), 99)
    assert dots_of(axis).get_clim() == pytest.approx((-limit, limit))
    assert axis.figure.axes[1].get_ylabel() == "score"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"n_sources": 0}, "n_sources must be at least 1, but is 0", id="n_sources"),
        pytest.param({"factors": [9]}, "factors holds 9", id="factor"),
        pytest.param({"factors": []}, "factors is empty", id="none"),
        pytest.param({"key_added": "mine"}, r"uns\['mine'\] holds no result of sc_ldvae\.tl\.enrichment", id="result"),
    ],
)
def test_bad_enrichment_is_refused(options: dict[str, Any], error: str, enriched: AnnData) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        pl.enrichment(enriched, show=False, **options)
    assert not plt.get_fignums()


@pytest.mark.parametrize("plot", [pl.associations, pl.enrichment])
def test_dots_lie_within_and_apart(plot: Callable[..., Axes], enriched: AnnData, tmp_path: Path) -> None:
    adata = enriched.copy()
    for i in range(12):
        adata.obs[f"a column of obs whose name is rather long {i}"] = adata.obsm["X_ldvae"][:, 0]
    tl.associate(adata)
    axis = plot(adata, show=False, save=tmp_path / "plot.png")
    figure = axis.figure
    figure.canvas.draw()
    corners = axis.transData.transform([(0, 0), (1, 1)])
    step = np.abs(corners[1] - corners[0]).min()
    assert np.sqrt(dots_of(axis).get_sizes().max()) * figure.dpi / 72 < step
    boxes = [one.get_tightbbox() for one in figure.axes] + [figure.legends[0].get_window_extent()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert boxes[-1].y1 <= boxes[0].y0
    # A caller's axes have no legend.
    own = plt.subplots()[1]
    assert plot(adata, ax=own, show=False) is own
    assert not own.figure.legends
