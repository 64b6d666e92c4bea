"""Top genes of each factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import get, record
from sc_ldvae._modality import pick_modality
from sc_ldvae.pl._figure import finish, panels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data

_COLORS = {"positive": "#b2182b", "negative": "#2166ac"}
_WIDTH = 1.6
_WIDTH_PER_LETTER = 0.075
_HEIGHT_PER_GENE = 0.17


def loadings(
    data: Data,
    factors: Sequence[int | str] | int | str | None = None,
    n_genes: int = 10,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    ncols: int = 5,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the genes with the largest and the smallest loadings of each factor.

    Each panel is a factor. Its genes stand in the order of their loadings: the more of the factor a cell has, the
    higher the expression of the red genes above and the lower that of the blue genes below, relative to the average
    gene. All panels have one scale. The title gives the share of the held-out deviance that the factor explains.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    factors
        Factors by number from 1 or by name; all if None, which makes a large figure of many.
    n_genes
        Number of genes per factor and direction.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    ncols
        Panels per row.
    ax
        Axes to draw on, one for each factor.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per factor, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit or factor, or if `ax` has another number of axes.

    See Also
    --------
    sc_ldvae.get.top_genes : The same genes as a table.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> axes = sc_ldvae.pl.loadings(adata, [1, 2], n_genes=5, show=False)
    >>> len(axes)
    2
    """
    if isinstance(factors, int | np.integer | str):
        factors = [factors]
    adata = pick_modality(data, modality)
    table = get.top_genes(adata, n_genes, factors=factors, key=key)
    explained = get.factors(adata, key=key)["explained_deviance"]
    numbers = {name: k for k, name in enumerate(explained.index, start=1)}
    names = get.loadings(adata, factors, key=key).columns
    most = table.groupby("factor").size().max()
    longest = table.index.get_level_values("gene").str.len().max()
    width = _WIDTH + _WIDTH_PER_LETTER * longest
    axes = panels(len(names), ax, ncols=ncols, width=width, height=1.0 + _HEIGHT_PER_GENE * most)
    for axis, name in zip(axes, names, strict=True):
        title = f"Factor {numbers[name]}\n{100 * explained[name]:.1f} % of deviance"
        _draw(axis, table.loc[[name]].droplevel("factor"), title)
    reach = table["loading"].min(), table["loading"].max()
    for axis in axes:
        # One scale for all: else a weak factor looks as strong as the first.
        axis.set_xlim(min(0, 1.05 * reach[0]), max(0, 1.05 * reach[1]))
    return finish(axes, show=show, save=save)


def _draw(axis: Axes, genes: pd.DataFrame, title: str) -> None:
    """Horizontal bars, largest loading on top, smallest at the bottom."""
    from matplotlib.ticker import MaxNLocator

    genes = genes.sort_values("loading", ascending=False, kind="stable")
    # The genes between the two ends are left out: so is a row.
    rows = np.arange(len(genes)) + (genes["direction"] == "negative").to_numpy()
    axis.barh(rows, genes["loading"], height=0.72, color=genes["direction"].map(_COLORS))
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(rows, genes.index, fontsize=8)
    axis.set_ylim(rows[-1] + 0.6, -0.6)
    axis.set_xlabel("loading (ln fold change\nper unit of the factor)", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(visible=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
