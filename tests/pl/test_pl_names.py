"""Names are drawn as they are, whatever they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

import sc_ldvae
from sc_ldvae import pl, tl
from sc_ldvae.pl._text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData

ODD = [
    r"$\frac{$",
    "$x$ and $y$",
    "one\nand\ttwo",
    "",
    " ",
    "_leading",
    "N" * 2000,
    "\N{DNA DOUBLE HELIX}",
    "\N{CJK UNIFIED IDEOGRAPH-57FA}",
    "100 %",
    "a_b^c",
    "\x07bell",
]
# Beside what all plots are asked for.
ASKED: dict[str, dict[str, Any]] = {
    "loadings": {"n_genes": 15},
    "loadings_heatmap": {"n_genes": 20},
    "loadings_scatter": {"n_genes": 10},
    "covariate_effects": {"n_genes": 15},
    "embedding": {"basis": r"X_$\sqrt{$"},
    "latent": {"groupby": "$b$ $c$"},
    "factors": {"basis": r"X_$\sqrt{$", "keys": [r"$\over$"]},
}
each_plot = pytest.mark.parametrize("name", pl.__all__)


@pytest.fixture(scope="module")
def odd(write_enrichment: Callable[..., None]) -> AnnData:
    """Everything that has a name has an odd one, and every plot has something to draw."""
    adata = sc_ldvae.datasets.simulate(120, 24, 2)
    adata.var_names = ODD + [f"gene{i}" for i in range(24 - len(ODD))]
    cells = np.arange(120)
    adata.obs["$b$ $c$"] = pd.Categorical(np.where(cells % 2, r"$\bad{$", "L" * 500))
    adata.obs[r"$\over$"] = pd.Categorical(np.where(cells % 3, "$u$ $v$", "two\nlines"))
    keys = ["$b$ $c$", r"$\over$"]
    tl.ldvae(adata, 2, batch_key=keys[0], categorical_covariate_keys=keys[1:], max_epochs=2, progress=False)
    tl.explained_deviance(adata, keys[1], cells="all", thinned=0.2, progress=False)
    tl.stability(adata, 2, progress=False)
    tl.associate(adata)
    write_enrichment(adata, ODD)
    tl.select_n_latent(adata, [1, 2], 1, max_epochs=1, progress=False)
    tl.posterior_predictive(adata, key_added="posterior_predictive", progress=False)
    adata.obsm[r"X_$\sqrt{$"] = adata.obsm["X_ldvae"]
    return adata


def drawn(name: str, data: AnnData | MuData, **kwargs: Any) -> Figure:
    getattr(pl, name)(data, show=False, **ASKED.get(name, {}), **kwargs)
    figure = plt.gcf()
    figure.draw_without_rendering()
    return figure


def with_dollars(figure: Figure) -> list[Text]:
    """Texts that matplotlib would take for mathematics, but for those that it makes of numbers itself."""
    texts = figure.findobj(lambda one: isinstance(one, Text) and one.get_text().count("$") > 1)
    return [text for text in texts if not text.get_text().startswith(r"$\mathdefault")]


@each_plot
def test_odd_names_are_drawn_letter_by_letter(name: str, odd: AnnData, joint: MuData) -> None:
    figure = drawn(name, joint if name == "modalities" else odd)
    # Long names make no endless figure.
    assert max(figure.get_size_inches()) < 60
    texts = with_dollars(figure)
    assert bool(texts) == (name not in {"history", "n_latent", "posterior_predictive", "stability"})
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)


@pytest.mark.parametrize("kind", ["rank", "dot"])
def test_other_kinds_draw_them_letter_by_letter(kind: str, odd: AnnData) -> None:
    texts = with_dollars(drawn("loadings", odd, kind=kind))
    assert texts
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("name", ["loadings", "factors", "explained_deviance"])
def test_odd_names_of_modalities_too(name: str, joint_assessed: MuData) -> None:
    getattr(pl, name)(joint_assessed, show=False)
    texts = with_dollars(plt.gcf())
    assert texts
    assert not any(text.get_parse_math() for text in texts)


def test_names_beside_points_of_given_axes_too(odd: AnnData) -> None:
    _, axis = plt.subplots()
    texts = with_dollars(drawn("loadings_scatter", odd, ax=axis))
    assert {text.get_text() for text in texts} >= {"$x$ and $y$"}
    assert not any(text.get_parse_math() for text in texts)


def test_mathematics_of_the_caller_stays(odd: AnnData) -> None:
    _, (axis, other) = plt.subplots(1, 2)
    other.set_title("$\\beta$ and $\\gamma$")
    own = axis.text(0, 0, "$\\alpha$")
    drawn("history", odd, ax=axis)
    assert own.get_parse_math()
    assert other.title.get_parse_math()


def test_powers_of_ten_stay_mathematics(odd: AnnData) -> None:
    axis = drawn("posterior_predictive", odd).axes[1]
    labels = [label for label in axis.get_xticklabels() if "10^" in label.get_text()]
    assert labels
    assert all(label.get_parse_math() for label in labels)


def test_labels_are_the_names(odd: AnnData) -> None:
    labels = {label.get_text() for axis in drawn("loadings", odd).axes for label in axis.get_yticklabels()}
    assert {r"$\frac{$", "$x$ and $y$", "_leading", "100 %", "a_b^c"} <= labels


def test_a_letter_that_no_font_has_gets_a_stand_in(odd: AnnData) -> None:
    """Else matplotlib warns of it whenever the figure is drawn."""
    labels = {label.get_text() for label in drawn("loadings_heatmap", odd).axes[0].get_yticklabels()}
    assert "\N{REPLACEMENT CHARACTER}" in labels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("CD8A", "CD8A", id="plain"),
        pytest.param("x" * 80, "x" * 80, id="just-fits"),
        pytest.param("a" * 50 + "b" * 50, "a" * 39 + "…" + "b" * 40, id="long"),
        pytest.param("a\nb\tc\x00d", "a b c d", id="unprintable"),
        pytest.param(7, "7", id="number"),
    ],
)
def test_shown(name: object, expected: str) -> None:
    assert shown(name) == expected


def test_ordinary_names_need_no_look_at_fonts(fitted: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> Callable[..., object]:
        return pytest.fail("a font was asked for a plain name")

    monkeypatch.setattr("sc_ldvae.pl._text._files", looked)
    assert pl.loadings(fitted, show=False)
