"""Genes under the names of a column of var, in every frame and plot of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sc_ldvae import get, pl, tl

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

FRAMES: dict[str, Callable[..., pd.DataFrame]] = {
    "loadings": get.loadings,
    "loadings_se": get.loadings_se,
    "top_genes": get.top_genes,
    "covariate_effects": get.covariate_effects,
    "differential_expression": get.differential_expression,
}
PLOTS: dict[str, Callable[..., Any]] = {
    "loadings": lambda data, **kwargs: pl.loadings(data, [1], **kwargs)[0].figure,
    "ranks": lambda data, **kwargs: pl.loadings(data, [1], kind="rank", **kwargs)[0].figure,
    "factors": lambda data, **kwargs: pl.factors(data, [1], **kwargs),
    "loadings_heatmap": lambda data, **kwargs: pl.loadings_heatmap(data, **kwargs).figure,
    "loadings_scatter": lambda data, **kwargs: pl.loadings_scatter(data, **kwargs).figure,
    "covariate_effects": lambda data, **kwargs: pl.covariate_effects(data, **kwargs)[0].figure,
}


@pytest.fixture(scope="module")
def named(fitted: AnnData) -> AnnData:
    """Each gene has a symbol, but for one that has none, one that is empty, and two of one symbol."""
    adata = fitted.copy()
    symbols = np.array([f"SYM{i}" for i in range(adata.n_vars)], dtype=object)
    symbols[3], symbols[4], symbols[6] = np.nan, "", "SYM5"
    adata.var["symbol"] = symbols
    adata.obs["label"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    tl.differential_expression(adata, "label", progress=False)
    return adata


def expected(adata: AnnData) -> dict[str, str]:
    shown = {f"gene{i}": f"SYM{i}" for i in range(adata.n_vars)}
    return shown | {"gene3": "gene3", "gene4": "gene4", "gene5": "SYM5 (gene5)", "gene6": "SYM5 (gene6)"}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_those_of_names_with_symbols_for_them(name: str, named: AnnData) -> None:
    plain, shown = FRAMES[name](named), FRAMES[name](named, gene_symbols="symbol")
    names, symbols = (frame.index.get_level_values(-1) for frame in (plain, shown))
    assert symbols.tolist() == [expected(named)[gene] for gene in names]
    np.testing.assert_array_equal(shown.to_numpy(), plain.to_numpy())


def texts(figure: Any) -> set[str]:
    found = {text.get_text() for axis in figure.axes for text in axis.texts}
    return found | {label.get_text() for axis in figure.axes for label in axis.get_yticklabels()}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_show_symbols(name: str, named: AnnData) -> None:
    before, after = (texts(PLOTS[name](named, show=False, **given)) for given in ({}, {"gene_symbols": "symbol"}))
    genes = before & set(named.var_names)
    assert genes
    assert after >= {expected(named)[gene] for gene in genes}
    assert not after & (set(named.var_names) - {"gene3", "gene4"})


@pytest.mark.parametrize("plot", [pl.loadings_heatmap, pl.loadings_scatter])
def test_genes_are_chosen_by_their_symbols(plot: Callable[..., Any], named: AnnData) -> None:
    axis = plot(named, genes=["SYM9", "SYM5 (gene6)"], gene_symbols="symbol", show=False)
    assert {"SYM9", "SYM5 (gene6)"} <= texts(axis.figure)


def test_modalities_without_the_column_keep_their_names(joint: MuData) -> None:
    mdata = joint.copy()
    mdata["rna"].var["symbol"] = "s-" + mdata["rna"].var_names
    frame, plain = get.loadings(mdata, gene_symbols="symbol"), get.loadings(mdata)
    assert frame.loc["rna"].index.tolist() == [f"s-{name}" for name in plain.loc["rna"].index]
    assert frame.loc["prot"].index.tolist() == plain.loc["prot"].index.tolist()
    effects = get.covariate_effects(mdata, gene_symbols="symbol")
    assert effects.index.tolist() == frame.index.tolist()
    with pytest.raises(ValueError, match=r"^gene_symbols='gone' is not a column of var\. Columns: 'symbol'"):
        get.loadings(mdata, gene_symbols="gone")


@pytest.mark.parametrize("name", FRAMES)
def test_unknown_columns_are_refused(name: str, named: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^gene_symbols='gone' is not a column of var\. Columns: .*'symbol'"):
        FRAMES[name](named, gene_symbols="gone")
