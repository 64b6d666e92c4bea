"""Loadings of two factors against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._ends import COLORS
from sc_ldvae.pl._figure import finish, lay_out, panels, plot
from sc_ldvae.pl._names import place
from sc_ldvae.pl._text import letters
from sc_ldvae.pl._wording import check_genes, factor_titles, listed, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.assess import Method
    from sc_ldvae.get import Per

# Inches.
_SIZE = 4.5
_WIDTH_PER_LETTER = 0.075
_USUAL_LETTERS = 10
# Of the span of the loadings, on each side: room for names.
_MARGIN = 0.12
_N_POINTS = 100


@plot
def loadings_scatter(
    data: Data,
    x: int | str = 1,
    y: int | str = 2,
    *,
    n_genes: int = 4,
    genes: Sequence[str] | str | None = None,
    rotation: Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot the loadings of two factors against each other, with the names of the extreme genes of both.

    Genes along one axis belong to one factor, genes between the axes to both. Both axes have one scale.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    x, y
        Factors by number from 1 or by name.
    n_genes
        Number of genes to name per factor and direction: at both ends of both axes, those that
        :func:`sc_ldvae.pl.loadings` shows.
    genes
        Names of fitted genes to name instead.
    rotation, per, log2
        Factors and unit, as in :func:`sc_ldvae.get.loadings`.
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
    The axes, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, factor, gene, rotation or unit, if `x` is `y`, if a gene is named twice, or if
        `n_genes` is below one.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> axis = sc_ldvae.pl.loadings_scatter(adata, 1, 3, genes=["gene0", "gene1"], show=False)
    >>> [text.get_text() for text in axis.texts]
    ['gene0', 'gene1']
    """
    if n_genes < 1:
        msg = f"n_genes must be at least 1, but is {n_genes}."
        raise ValueError(msg)
    stored = record.read(pick_modality(data, modality), key)
    names = listed(stored, [x, y])
    where: Any = {"key": key, "modality": modality, "gene_symbols": gene_symbols}
    options: Any = {"rotation": rotation, "per": per, "log2": log2, **where}
    frame = get.loadings(data, names, **options)
    points = frame.to_numpy(dtype=np.float64)
    if genes is None:
        chosen = get.top_genes(data, n_genes, factors=names, **options).index.unique("gene")
    else:
        chosen = check_genes(frame.index, genes)
    named = frame.index.get_indexer(chosen)
    width = _SIZE + _WIDTH_PER_LETTER * max(letters(frame.index[named]) - _USUAL_LETTERS, 0)
    axis = panels(1, ax, ncols=1, width=width, height=_SIZE)[0]
    others = np.delete(points, named, axis=0)
    axis.scatter(others[:, 0], others[:, 1], s=4, color="0.7", linewidths=0, rasterized=True)
    axis.scatter(points[named, 0], points[named, 1], s=12, color=COLORS["positive"], linewidths=0, zorder=3)
    titles, unit = factor_titles(stored, rotation), unit_of(per, log2=log2)
    labels = [f"{titles[name]}: loading\n({' '.join(unit.split())})" for name in frame.columns]
    _dress(axis, labels)
    lay_out([axis])
    _set_scale(axis, points)
    place(axis, points[named], frame.index[named].tolist(), np.vstack([others, *_zero_lines(axis)]))
    return None if finish([axis], show=show, save=save) is None else axis


def _dress(axis: Axes, labels: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.axhline(0, color="0.3", linewidth=0.8, zorder=1)
    axis.axvline(0, color="0.3", linewidth=0.8, zorder=1)
    axis.set_xlabel(labels[0], fontsize=9)
    axis.set_ylabel(labels[1], fontsize=9)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(False)


def _set_scale(axis: Axes, points: Floats) -> None:
    """Equal scales that fill the axes, with all points and the origin within."""
    low, high = np.minimum(points.min(0), 0), np.maximum(points.max(0), 0)
    size = np.array(axis.get_window_extent().size)
    half = (0.5 + _MARGIN) * (high - low).max() * size / size.min()
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def _zero_lines(axis: Axes) -> tuple[Floats, Floats]:
    """As points, which names then avoid."""
    x, y = (np.linspace(*limits, _N_POINTS) for limits in (axis.get_xlim(), axis.get_ylim()))
    return np.column_stack([x, np.zeros_like(x)]), np.column_stack([np.zeros_like(y), y])
