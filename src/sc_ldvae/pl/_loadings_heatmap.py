"""Loadings of many factors side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._figure import finish, panels, plot
from sc_ldvae.pl._text import letters, shown
from sc_ldvae.pl._wording import check_genes, factor_titles, listed, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from sc_ldvae._typing import Data, Floats, Positions
    from sc_ldvae.assess import Method
    from sc_ldvae.get import Per

# Inches.
_WIDTH_PER_FACTOR = 0.24
_WIDTH_PER_LETTER = 0.075
_ROW, _LOW_ROW = 0.15, 0.11
_COLOR_BAR = 2.0
_LEAST_HEIGHT, _NAMELESS_HEIGHT = 2.2, 12.0
# Rows that are high, and rows that have names at all: of more, the figure would be too tall for readers and files.
_MOST_HIGH_ROWS, _MOST_ROWS = 80, 800
# Of the entries; the largest few would make all others pale.
_LIMIT_PERCENTILE = 99


@plot
def loadings_heatmap(
    data: Data,
    n_genes: int = 5,
    *,
    factors: Sequence[int | str] | None = None,
    genes: Sequence[str] | str | None = None,
    order: Literal["factor", "clustered"] = "factor",
    rotation: Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    cmap: str | Colormap = "RdBu_r",
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot the loadings of genes on all factors as a heat map.

    It shows which genes factors share, which the lists of :func:`sc_ldvae.pl.loadings` do not. Colours are symmetric
    around zero and end at the 99th percentile of the absolute loadings shown. The figure grows with the number of
    genes; above 800 their names are left out.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    n_genes
        Number of genes per factor and direction.
    factors
        Factors by number from 1 or by name, in this order; all that have not vanished if None.
    genes
        Names of fitted genes to show instead of the most extreme ones.
    order
        ``'factor'``: each gene stands with the factor of its most extreme loading, from the largest to the smallest;
        ``'clustered'``: genes and factors in the order of the leaves of average linkage clustering of their Euclidean
        distances, neighbours being as similar as the tree allows (Bar-Joseph et al. 2001).
    rotation, per, log2
        Factors and unit, as in :func:`sc_ldvae.get.loadings`.
    cmap
        Diverging colour map.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    gene_symbols
        Column of `var` with the names to show, as in :func:`sc_ldvae.get.loadings`; `genes` are such names, too.
    ax
        Axes to draw on.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes of the heat map, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, factor, gene, order, rotation, unit or colour map, if no factor or gene is named or one
        twice, or if `n_genes` is below one.

    References
    ----------
    Bar-Joseph, Gifford, Jaakkola 2001, Fast optimal leaf ordering for hierarchical clustering, Bioinformatics 17:S22.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> axis = sc_ldvae.pl.loadings_heatmap(adata, genes=["gene0", "gene1"], show=False)
    >>> sorted(label.get_text() for label in axis.get_yticklabels())
    ['gene0', 'gene1']
    """
    if order not in {"factor", "clustered"}:
        msg = f"order must be 'factor' or 'clustered', but is {order!r}."
        raise ValueError(msg)
    stored, colors = record.read(pick_modality(data, modality), key), _color_map(cmap)
    factors = listed(stored, factors)
    where: Any = {"key": key, "modality": modality, "gene_symbols": gene_symbols}
    unit: Any = {"rotation": rotation, "per": per, "log2": log2, **where}
    frame = get.loadings(data, factors, **unit)
    if genes is None:
        table = get.top_genes(data, n_genes, factors=factors, **unit)
        frame = frame.loc[table.index.get_level_values("gene").unique()]
    else:
        frame = frame.loc[check_genes(frame.index, genes)]
    frame = _by_factor(frame) if order == "factor" else _clustered(frame)
    titles = factor_titles(stored, rotation)
    numbers = [titles[name].removeprefix("Factor ").split()[0] for name in frame.columns]
    axis = _new_axes(frame, ax)
    _draw(axis, frame, numbers, colors, f"loading ({unit_of(per, log2=log2)})")
    axis.set_xlabel("factor" if rotation is None else f"factor ({rotation})", fontsize=8)
    return None if finish([axis], show=show, save=save) is None else axis


def _color_map(cmap: str | Colormap) -> Colormap:
    import matplotlib as mpl

    if isinstance(cmap, mpl.colors.Colormap):
        return cmap
    if not isinstance(cmap, str) or cmap not in mpl.colormaps:
        msg = f"cmap must be a Colormap of matplotlib or the name of one, but is {cmap!r}."
        raise ValueError(msg)
    return mpl.colormaps[cmap]


def _by_factor(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.to_numpy()
    own = np.abs(values).argmax(1)
    return frame.iloc[np.lexsort([-values[np.arange(len(own)), own], own])]


def _clustered(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.to_numpy(dtype=np.float64)
    return frame.iloc[_leaves(values), _leaves(values.T)]


def _leaves(rows: Floats) -> Positions:
    from scipy.cluster import hierarchy

    if len(rows) == 1:
        return np.zeros(1, dtype=np.intp)
    tree = hierarchy.linkage(rows, method="average", metric="euclidean", optimal_ordering=True)
    return hierarchy.leaves_list(tree).astype(np.intp)


def _row_height(n: int) -> float:
    return _ROW if n <= _MOST_HIGH_ROWS else _LOW_ROW


def _new_axes(frame: pd.DataFrame, ax: Axes | None) -> Axes:
    n_rows, n_columns = frame.shape
    width = 1.6 + _WIDTH_PER_FACTOR * max(n_columns, 4) + _WIDTH_PER_LETTER * letters(frame.index)
    height = max(1.0 + _row_height(n_rows) * n_rows, _LEAST_HEIGHT) if n_rows <= _MOST_ROWS else _NAMELESS_HEIGHT
    return panels(1, ax, ncols=1, width=width, height=height)[0]


def _draw(axis: Axes, frame: pd.DataFrame, numbers: Sequence[str], colors: Colormap, label: str) -> None:
    n_rows, n_columns = frame.shape
    limit = float(np.percentile(frame.abs(), _LIMIT_PERCENTILE)) or 1.0
    image = axis.imshow(frame, cmap=colors, vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    font = min(8.0, 72 * 0.8 * _row_height(n_rows))
    axis.set_yticks(np.arange(n_rows), list(map(shown, frame.index)), fontsize=font)
    if n_rows > _MOST_ROWS:
        axis.set_yticks([])
        axis.set_ylabel(f"{n_rows} genes", fontsize=8)
    # In a tall figure the numbers at one end are out of sight.
    axis.set_xticks(np.arange(n_columns), numbers, fontsize=8)
    axis.tick_params(length=0, labeltop=n_rows > _MOST_HIGH_ROWS)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    height = axis.get_window_extent().height / axis.figure.dpi
    beyond = float(frame.abs().to_numpy().max()) > limit
    bar = axis.figure.colorbar(
        image,
        ax=axis,
        shrink=min(1.0, _COLOR_BAR / height),
        anchor=(0.0, 1.0),
        aspect=min(_COLOR_BAR, height) / 0.1,
        extend="both" if beyond else "neither",
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
