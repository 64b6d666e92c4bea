"""Overview of the factors: the cells, the genes and the text of each tile, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.image
import mudata
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from sc_ldvae import get, pl, tl
from sc_ldvae.inputs import rotation_of
from sc_ldvae.record import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes


def tiles(figure: Figure) -> list[tuple[Axes, Axes]]:
    """Axes of the map and of the bars; the last axes are those of the colour bar."""
    axes = figure.axes[:-1]
    return list(zip(axes[::2], axes[1::2], strict=True))


def titles_of(figure: Figure) -> list[str]:
    return [cells.get_title(loc="left") for cells, _ in tiles(figure)]


def notes_of(figure: Figure) -> list[list[str]]:
    return [cells.texts[0].get_text().splitlines() for cells, _ in tiles(figure)]


def drawn_cells(axis: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values, from the lowest point to that on top."""
    (points,) = axis.collections
    return np.asarray(points.get_offsets()), np.asarray(points.get_array())


def assert_cells_are(axis: Axes, positions: np.ndarray, values: np.ndarray) -> None:
    places, colours = drawn_cells(axis)
    assert (np.diff(np.abs(colours)) >= 0).all()
    order = np.argsort(np.abs(values), kind="stable")
    np.testing.assert_allclose(places, positions[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(colours, values[order], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def wide(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    """30 factors, with long names of genes and levels."""
    adata = simulated.copy()
    adata.var_names = [f"GENE-WITH-FORTY-LETTERS-IN-ITS-NAME-{i:04d}" for i in range(60)]
    adata.obs["batch"] = adata.obs["batch"].astype(str) + "-IS-A-LEVEL-WITH-FORTY-LETTERS-IN-IT"
    fit_quickly(adata, 30)
    tl.associate(adata, ["batch"])
    return adata


def test_cells_are_coloured_by_their_factor(assessed: AnnData) -> None:
    figure = pl.factors(assessed, [3, 1], show=False)
    latent = assessed.obsm["X_ldvae"]
    assert titles_of(figure) == ["Factor 3", "Factor 1"]
    limit = np.percentile(np.abs(latent[:, [2, 0]]), 99)
    for (cells, _), k in zip(tiles(figure), (2, 0), strict=True):
        assert_cells_are(cells, latent[:, :2], latent[:, k])
        assert cells.collections[0].get_clim() == pytest.approx((-limit, limit))
        assert cells.collections[0].get_rasterized()
        assert not len(cells.get_xticks())
    assert (tiles(figure)[1][0].get_xlabel(), tiles(figure)[1][0].get_ylabel()) == ("Factor 1", "Factor 2")


@pytest.mark.parametrize(
    ("present", "basis", "expected"),
    [
        (["X_umap", "X_tsne", "X_pca"], None, "X_umap"),
        (["X_tsne", "X_pca"], None, "X_tsne"),
        (["X_umap", "X_pca"], "X_pca", "X_pca"),
    ],
    ids=["umap", "tsne", "named"],
)
def test_basis(present: list[str], basis: str | None, expected: str, assessed: AnnData) -> None:
    adata = assessed.copy()
    for i, name in enumerate(present):
        adata.obsm[name] = np.random.default_rng(i).normal(size=(200, 2 + i))
    cells, _ = tiles(pl.factors(adata, 2, basis=basis, show=False))[0]
    assert_cells_are(cells, adata.obsm[expected][:, :2], adata.obsm["X_ldvae"][:, 1])
    assert cells.get_xlabel() == expected.removeprefix("X_")


@pytest.mark.parametrize("by", ["bound", "loading"])
def test_bars_are_the_top_genes(by: str, assessed: AnnData) -> None:
    figure = pl.factors(assessed, n_genes=3, by=by, show=False)
    limits = set()
    for (_, bars), name in zip(tiles(figure), ["ldvae1", "ldvae2", "ldvae3"], strict=True):
        table = get.top_genes(assessed, 3, by=by).loc[name].sort_values("loading", ascending=False)
        assert [label.get_text() for label in bars.get_yticklabels()] == table.index.tolist()
        assert [bar.get_width() for bar in bars.patches] == pytest.approx(table["loading"].tolist())
        (whiskers,) = [artist for artist in bars.collections if isinstance(artist, LineCollection)]
        ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
        np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * 1.96 * table["se"], rtol=1e-4)
        assert not bars.get_title()
        limits.add(bars.get_xlim())
    assert len(limits) == 1
    assert figure.legends[0].get_texts()[0].get_text() == "95 % interval"


def test_text_says_what_is_known(assessed: AnnData) -> None:
    explained, stability = get.factors(assessed)["explained_deviance"], get.stability(assessed)["score"]
    # Whatever was measured afterwards, on thinned counts and all cells here, titles have what the fit measured.
    assert np.abs(explained - get.explained_deviance(assessed)["share"]).min() > 1e-4
    expected = []
    for name in explained.index:
        best = get.associations(assessed).loc[name].iloc[0]
        found = f"{best.name} (rho {best['statistic']:.2f})"
        if best["kind"] == "categorical":
            found = f"{best.name} (η² {best['statistic']:.2f}): high in {best['highest']}, low in {best['lowest']}"
        known = [f"{100 * explained[name]:.1f} % of deviance, stability {stability[name]:.2f}"]
        expected.append(known + [found] * bool(best["strength"] ** 2 >= 0.1))
    assert {len(lines) for lines in expected} == {1, 2}
    assert notes_of(pl.factors(assessed, show=False)) == expected


@pytest.fixture
def halved(assessed: AnnData) -> AnnData:
    """With a column that each factor follows more or less, and one that none does."""
    adata = assessed.copy()
    adata.obs["half"] = np.where(adata.obsm["X_ldvae"].sum(1) > 0, "upper", "lower")
    adata.obs["parity"] = np.where(np.arange(adata.n_obs) % 2, "odd", "even")
    tl.associate(adata, ["half", "parity"])
    return adata


def test_closest_of_some_columns(halved: AnnData) -> None:
    table = get.associations(halved).xs("half", level="key")
    named = table["statistic"] >= 0.1
    assert named.any()
    for keys in (["half"], "half"):
        for note, row in zip(notes_of(pl.factors(halved, keys=keys, show=False)), table.itertuples(), strict=True):
            found = [f"half (η² {row.statistic:.2f}): high in {row.highest}, low in {row.lowest}"]
            assert note[1:] == found * bool(row.statistic >= 0.1)


def test_a_column_that_the_factor_does_not_follow_is_not_named(halved: AnnData) -> None:
    assert all(len(note) == 1 for note in notes_of(pl.factors(halved, keys="parity", show=False)))


@pytest.mark.parametrize(("statistic", "named"), [(-0.4, True), (0.4, True), (-0.3, False), (0.3, False)])
def test_correlations_are_named_by_their_square(halved: AnnData, statistic: float, named: bool) -> None:
    table = dict(halved.uns["ldvae_associations"])
    n = len(table["key"])
    changed = {"kind": np.array(["continuous"] * n), "statistic": np.full(n, statistic)}
    halved.uns["ldvae_associations"] = {name: one for name, one in table.items() if name != "checksum"} | changed
    notes = notes_of(pl.factors(halved, show=False))
    assert [len(note) == 2 for note in notes] == [named] * 3
    assert not named or all(note[1].endswith(f"(rho {statistic:.2f})") for note in notes)


def test_unknown_pieces_are_left_out(fitted: AnnData) -> None:
    explained = fitted.uns["ldvae"]["explained_deviance"]
    assert notes_of(pl.factors(fitted, show=False)) == [[f"{100 * share:.1f} % of deviance"] for share in explained]


def test_dollars_in_names_are_no_formulas(assessed: AnnData) -> None:
    adata = assessed.copy()
    adata.obs["batch"] = np.where(adata.obsm["X_ldvae"][:, 0] > 0, "$\\batch0$", "$\\batch1$")
    tl.associate(adata, ["batch"])
    figure = pl.factors(adata, 1, show=False)
    figure.canvas.draw()
    assert "high in $\\batch" in notes_of(figure)[0][1]


def test_rotated_factors(assessed: AnnData) -> None:
    adata = assessed.copy()
    figure = pl.factors(adata, [2], rotation="varimax", show=False)
    latent = adata.obsm["X_ldvae"] @ rotation_of(adata, read(adata), "varimax", "rotation")
    cells, bars = tiles(figure)[0]
    assert titles_of(figure) == ["Factor 2 (varimax)"]
    assert notes_of(figure) == [[]]
    assert_cells_are(cells, latent[:, :2], latent[:, 1])
    genes = [label.get_text() for label in bars.get_yticklabels()]
    loadings = get.loadings(adata, rotation="varimax")["ldvae2"][genes]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(loadings.tolist())
    tl.stability(adata, 2, rotation="varimax", progress=False)
    score = get.stability(adata)["score"].iloc[1]
    assert notes_of(pl.factors(adata, [2], rotation="varimax", show=False)) == [[f"stability {score:.2f}"]]
    assert "stability" not in notes_of(pl.factors(adata, [2], show=False))[0][0]


@pytest.mark.parametrize(("ncols", "shape"), [(1, (3, 2)), (2, (2, 4)), (3, (1, 6)), (9, (1, 6))])
def test_ncols_lays_out_the_tiles(ncols: int, shape: tuple[int, int], assessed: AnnData) -> None:
    figure = pl.factors(assessed, ncols=ncols, show=False)
    spec = figure.axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == shape
    named = [k for k, (_, bars) in enumerate(tiles(figure)) if bars.get_xlabel()]
    assert named == list(range(max(3 - ncols, 0), 3))


@pytest.mark.parametrize("n", [1, 7])
def test_any_number_of_factors_of_genes_with_long_names(n: int, wide: AnnData) -> None:
    figure = pl.factors(wide, range(1, n + 1), show=False)
    figure.canvas.draw()
    assert titles_of(figure) == [f"Factor {k}" for k in range(1, n + 1)]
    lefts = []
    for cells, bars in tiles(figure):
        (text,) = cells.texts
        header, plot = text.get_window_extent(), cells.get_window_extent()
        assert plot.y1 <= header.y0
        assert header.y1 <= cells._left_title.get_window_extent().y0 + 1
        assert header.x1 <= bars.get_tightbbox().x1 + 0.2 * figure.dpi
        assert min(plot.width, bars.get_window_extent().width) > 0.8 * figure.dpi
        assert bars.get_tightbbox().x0 >= plot.x1
        lefts.append(header.x0)
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    assert all(box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height for box in boxes)
    assert len({round(left) for left in lefts}) == min(n, 3)


def test_a_single_factor_is_a_line(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(simulated, 1, copy=True)
    cells, _ = tiles(pl.factors(adata, show=False))[0]
    assert_cells_are(cells, np.pad(adata.obsm["X_ldvae"], ((0, 0), (0, 1))), adata.obsm["X_ldvae"][:, 0])


def test_shown_saved_or_returned(
    assessed: AnnData, unchanged: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda: None)
    adata = assessed.copy()
    adata.X = None
    with unchanged(adata):
        assert pl.factors(adata, show=True) is None
        drawn = pl.factors(mudata.MuData({"rna": adata}), modality="rna", show=False, save=tmp_path / "plot.png")
    assert isinstance(drawn, Figure)
    assert matplotlib.image.imread(tmp_path / "plot.png").min() < 0.5


BAD = [
    pytest.param({"factors": [4]}, "factors holds 4", id="factor"),
    pytest.param({"factors": [1, "ldvae1"]}, "factors holds 'ldvae1' more than once", id="factor-twice"),
    pytest.param({"n_genes": 0}, "n_genes must be at least 1, but is 0", id="n_genes"),
    pytest.param({"ncols": 0}, "ncols must be at least 1, but is 0", id="ncols"),
    pytest.param({"by": "se"}, "by='se' is unknown", id="by"),
    pytest.param({"rotation": "quartimax"}, "rotation='quartimax' is unknown", id="rotation"),
    pytest.param({"basis": "X_pca"}, "basis='X_pca' is not in obsm. Choose one of .*'X_ldvae'", id="basis"),
    pytest.param({"basis": "line"}, r"basis='line' has the shape \(200, 1\), but two columns", id="one-column"),
    pytest.param({"keys": ["age"]}, "keys holds 'age', which was not associated", id="keys"),
    pytest.param({"keys": ["batch"], "rotation": "varimax"}, r"keys=\['batch'\]: associations are of", id="rotated"),
    pytest.param({"key": "foo"}, r"uns\['foo'\] holds no fit", id="key"),
]


@pytest.mark.parametrize(("options", "error"), BAD)
def test_bad_arguments_are_refused(options: dict[str, Any], error: str, assessed: AnnData) -> None:
    adata = assessed.copy()
    adata.obsm["line"] = adata.obsm["X_ldvae"][:, :1]
    with pytest.raises(ValueError, match=f"^{error}"):
        pl.factors(adata, show=False, **options)
    assert not plt.get_fignums()


def test_keys_need_associations(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^uns\['ldvae_associations'\] holds no result of sc_ldvae\.tl\.associate"):
        pl.factors(fitted, keys=["batch"], show=False)
