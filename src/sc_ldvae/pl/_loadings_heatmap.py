"""Loadings of many factors side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._figure import finish, plot
from sc_ldvae.pl._heat_map import by_factor, heat_map
from sc_ldvae.pl._wording import check_genes, factor_numbers, listed, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from sc_ldvae._typing import Data, Floats, Positions
    from sc_ldvae.assess import Method
    from sc_ldvae.get import Per


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
    frame = by_factor(frame) if order == "factor" else _clustered(frame)
    numbers, label = factor_numbers(stored, map(str, frame.columns)), f"loading ({unit_of(per, log2=log2)})"
    axis = heat_map(frame, numbers, colors, label=label, rows="genes", ax=ax)
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


def _clustered(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.to_numpy(dtype=np.float64)
    return frame.iloc[_leaves(values), _leaves(values.T)]


def _leaves(rows: Floats) -> Positions:
    from scipy.cluster import hierarchy

    if len(rows) == 1:
        return np.zeros(1, dtype=np.intp)
    tree = hierarchy.linkage(rows, method="average", metric="euclidean", optimal_ordering=True)
    return hierarchy.leaves_list(tree).astype(np.intp)
