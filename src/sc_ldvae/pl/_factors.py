"""What each factor is: where it is high, which genes it moves, and how far it can be trusted."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from sc_ldvae import get, record
from sc_ldvae.inputs import fitted_of
from sc_ldvae.pl._ends import draw, explain
from sc_ldvae.pl._figure import figure_of, finish, plot
from sc_ldvae.pl._maps import add_color_bar, draw_maps
from sc_ldvae.pl._notes import notes
from sc_ldvae.pl._places import Places
from sc_ldvae.pl._text import as_it_is, letters, shown
from sc_ldvae.pl._top_panels import shares_by_modality, top_panels
from sc_ldvae.pl._wording import factor_titles, listed, vanished

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.assess import Method
    from sc_ldvae.get import By
    from sc_ldvae.pl._ends import Panel

# Inches: the map, the bars, a letter of a gene's name and of a note, what stands around a tile, and a row of bars.
_MAP, _BARS, _LETTER, _NOTE_LETTER = 1.7, 1.4, 0.075, 0.06
_AROUND_WIDTH, _AROUND_HEIGHT, _BOTTOM, _ROW = 0.3, 0.5, 0.4, 0.15
_COLOR_BAR = 0.9
_AXES_PER_ROW = 6
_FONT, _LINE = 7.5, 9.5


@plot
def factors(
    data: Data,
    factors: Sequence[int | str] | int | str | None = None,
    *,
    basis: str | None = None,
    n_genes: int = 5,
    by: By = "bound",
    keys: Sequence[str] | str | None = None,
    rotation: Method | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    ncols: int | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Figure | None:
    """Plot an overview of the factors, one tile for each.

    A tile shows the cells coloured by the factor, and the genes with the largest and the smallest loadings as in
    :func:`sc_ldvae.pl.loadings`. Its title gives the share of the deviance that the factor explains, as the fit
    measured it; its score, after :func:`sc_ldvae.tl.stability`; and, after :func:`sc_ldvae.tl.associate`, the column of
    `obs` that it follows most closely, with eta squared or Spearman's correlation (rho) and the levels in which the
    factor is highest and lowest. None is named whose eta or rho squared is below 0.1: nine tenths of the factor are
    something else.

    All tiles have the same colours and scales. Colours are symmetric around zero and end at the 99th percentile of the
    absolute values shown. Cells with values far from zero lie on top. Of a joint fit, a tile has genes of each
    modality, under what the factor explains of its deviance.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    basis
        Entry of `obsm` whose first two columns place the cells, as in ``sc.pl.embedding``: ``'umap'`` or ``'X_umap'``.
        By default UMAP, else t-SNE, else the first two factors. Of a joint fit, of the MuData, or else of its first
        modality that has it, whose cells are shown.
    n_genes
        Number of genes per factor and direction, of a joint fit in each modality.
    by
        How genes are chosen, as in :func:`sc_ldvae.get.top_genes`.
    keys
        Columns of `obs` to choose the closest from; all that were associated by default.
    rotation
        Show rotated factors, as in :func:`sc_ldvae.get.loadings`. What they explain and go with is not known (keep them
        with :func:`sc_ldvae.tl.rotate` to find out), their score only if it was computed with the same `rotation`.
    key
        The `key_added` of the fit. Results of the tools are those under their default names for this fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in :func:`sc_ldvae.get.loadings`.
    ncols
        Tiles per row; by default 3, or fewer of a joint fit, whose tiles are wider.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The figure, if it is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, factor, order of genes (`by`) or rotation, if a factor is named twice, if `n_genes` or
        `ncols` is below one, if `basis` is not in `obsm` or has less than two columns, if `keys` were not associated or
        are given together with `rotation`, or if a result is of another fit.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> figure = sc_ldvae.pl.factors(adata, [1, 2], show=False)
    >>> [axis.get_title(loc="left") for axis in figure.axes[:4:2]]
    ['Factor 1', 'Factor 2']
    """
    if ncols is not None and ncols < 1:
        msg = f"ncols must be at least 1, but is {ncols}."
        raise ValueError(msg)
    whose, stored = fitted_of(data, key, modality)
    names = listed(stored, factors)
    where: Any = {"key": key, "modality": modality, "gene_symbols": gene_symbols}
    chosen = top_panels(data, stored, names, n_genes, by=by, rotation=rotation, per="unit", log2=False, **where)
    latent = get.latent_of(data, rotation, key, modality)
    cells = Places.of(whose, basis, latent)
    values = pd.DataFrame(latent, columns=stored.factor_names)[names].to_numpy()
    shares = {} if rotation else shares_by_modality(whose, stored, key)
    titles = factor_titles(stored, rotation)
    tiles = [
        _Tile(titles[name], text, [_under_its_modality(panel, name, shares) for panel in chosen[name]])
        for name, text in zip(names, notes(whose, names, shares.get(""), keys, rotation, key), strict=True)
    ]
    axes = _draw(tiles, cells, values, ncols or max(1, _AXES_PER_ROW // (1 + len(tiles[0].panels))))
    ends = pd.concat([panel.ends for tile in tiles for panel in tile.panels])
    explain(axes[-1], ends, "bar", vanished(stored, factors))
    return None if finish(axes, show=show, save=save) is None else figure_of(axes[0])


def _under_its_modality(panel: Panel, name: str, shares: Mapping[Hashable, pd.Series[float]]) -> Panel:
    """With the modality for a title, if there are several, and what the factor explains of it."""
    if not panel.modality:
        return panel._replace(title="")
    share = f": {100 * shares[panel.modality][name]:z.1f} % of deviance" if shares else ""
    return panel._replace(title=f"{shown(panel.modality)}{share}")


class _Tile(NamedTuple):
    """What one factor is."""

    title: str
    notes: list[str]
    panels: list[Panel]
    """One for each modality."""


def _draw(tiles: Sequence[_Tile], cells: Places, latent: Floats, ncols: int) -> list[Axes]:
    bars_wide = [
        _BARS + _LETTER * letters(_genes(panels)) for panels in zip(*(tile.panels for tile in tiles), strict=True)
    ]
    width = _AROUND_WIDTH + _MAP + sum(bars_wide)
    lines = [[part for line in tile.notes for part in wrap(line, int(width / _NOTE_LETTER))] for tile in tiles]
    # Over the bars stands their modality.
    most, below = max(map(len, lines)), int(any(panel.title for panel in tiles[0].panels))
    rows = max(len(panel.ends) for tile in tiles for panel in tile.panels) + 1
    height = _AROUND_HEIGHT + _LINE * (most + below) / 72 + max(_MAP, _ROW * rows)
    maps, bars = _new_axes(len(tiles), ncols, (width, height), len(bars_wide))
    draw([panel for tile in tiles for panel in tile.panels], "bar", ncols=ncols, ax=bars)
    points = draw_maps(maps, cells, latent, _MAP)
    for axis, tile, text in zip(maps, tiles, lines, strict=True):
        _entitle(axis, tile.title, text, most + below)
    for axis in bars:
        axis.title.set_fontsize(_FONT)
    for axis in (*maps[:-ncols], *bars[: -ncols * len(bars_wide)]):
        axis.set(xlabel="", ylabel="")
    add_color_bar(figure_of(maps[0]).axes, points, 0.8 * height, "value of the factor")
    return [*maps, *bars]


def _genes(panels: Sequence[Panel]) -> list[str]:
    return [gene for panel in panels for gene in panel.ends.index]


def _new_axes(n: int, ncols: int, size: tuple[float, float], n_bars: int) -> tuple[list[Axes], list[Axes]]:
    """Axes of maps and of bars, of which each tile of this size has so many."""
    from matplotlib import pyplot as plt

    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    figsize = size[0] * ncols + _COLOR_BAR, size[1] * nrows + _BOTTOM
    figure = plt.figure(figsize=figsize, layout="constrained")
    ratios = [_MAP, *[_BARS] * n_bars] * ncols
    grid = figure.subplots(nrows, len(ratios), width_ratios=ratios, squeeze=False)
    tiles = grid.reshape(-1, 1 + n_bars)
    for unused in tiles[n:].flat:
        unused.remove()
    return list(tiles[:n, 0]), list(tiles[:n, 1:].flat)


def _entitle(axis: Axes, title: str, lines: list[str], most: int) -> None:
    """The title over the lines, and room for as many of them as any tile has."""
    room = _LINE * most + 2
    axis.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=room + 2)
    note = axis.annotate(
        "\n".join(lines),
        (0, 1),
        (0, room),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=_FONT,
        linespacing=1.15,
        # It reaches over the bars, where nothing is.
        in_layout=False,
    )
    as_it_is(note)
