"""What each factor is: where it is high, which genes it moves, and how far it can be trusted."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._ends import COLORS, draw, explain
from sc_ldvae.pl._figure import figure_of, finish, plot
from sc_ldvae.pl._loadings import top_panels
from sc_ldvae.pl._text import as_it_is, letters, shown
from sc_ldvae.pl._wording import listed, vanished

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.assess import Method
    from sc_ldvae.get import By
    from sc_ldvae.pl._ends import Panel

# Inches: the map, the bars, a letter of a gene's name and of a note, what stands around a tile, and a row of bars.
_MAP, _BARS, _LETTER, _NOTE_LETTER = 1.7, 1.4, 0.075, 0.06
_AROUND_WIDTH, _AROUND_HEIGHT, _BOTTOM, _ROW = 0.3, 0.5, 0.4, 0.15
_COLOR_BAR = 0.9
_FONT, _LINE = 7.5, 9.5
# Of all values shown: the largest few would make all others pale.
_LIMIT_PERCENTILE = 99
# Square points that all cells of a map have together, and the sizes of one.
_INK = 9_000
_SIZES = 0.2, 12.0


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
    ncols: int = 3,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Figure | None:
    """Plot an overview of the factors, one tile for each.

    A tile shows the cells coloured by the factor, and the genes with the largest and the smallest loadings as in
    :func:`sc_ldvae.pl.loadings`. Its title gives the share of the deviance that the factor explains, on thinned counts
    and the like after :func:`sc_ldvae.tl.explained_deviance`, else as the fit measured it; its score, after
    :func:`sc_ldvae.tl.stability`; and, after :func:`sc_ldvae.tl.associate`, the column of `obs` that it follows most
    closely, with eta squared or Spearman's correlation (rho) and the levels in which the factor is highest and lowest.

    All tiles have the same colours and scales. Colours are symmetric around zero and end at the 99th percentile of the
    absolute values shown. Cells with values far from zero lie on top.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    basis
        Entry of `obsm` whose first two columns place the cells, such as ``'X_umap'``. By default ``'X_umap'``, if there
        is none ``'X_tsne'``, and if there is none either the first two factors.
    n_genes
        Number of genes per factor and direction.
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
        Modality of a MuData.
    ncols
        Tiles per row.
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
    if ncols < 1:
        msg = f"ncols must be at least 1, but is {ncols}."
        raise ValueError(msg)
    adata = pick_modality(data, modality)
    names = listed(adata, factors, key)
    chosen = top_panels(adata, names, n_genes, by=by, rotation=rotation, per="unit", log2=False, key=key)
    latent = get.latent_of(adata, rotation, key)
    cells = _Cells.of(adata, basis, latent)
    shown = pd.DataFrame(latent, columns=record.read(adata, key).factor_names)[names]
    axes = _draw(list(chosen.values()), _notes(adata, names, keys, rotation, key), cells, shown.to_numpy(), ncols)
    explain(axes[-1], pd.concat([panel.ends for panel in chosen.values()]), "bar", vanished(adata, factors, key))
    return None if finish(axes, show=show, save=save) is None else figure_of(axes[0])


class _Cells(NamedTuple):
    """Where the cells are."""

    positions: Floats
    """n_obs x 2."""
    labels: tuple[str, str]
    """Of the axes."""

    @classmethod
    def of(cls, adata: AnnData, basis: str | None, latent: Floats) -> _Cells:
        if basis is None:
            basis = next((name for name in ("X_umap", "X_tsne") if name in adata.obsm), None)
        if basis is None:
            # A single factor puts its cells on a line.
            return cls(np.pad(latent, ((0, 0), (0, 1)))[:, :2], ("Factor 1", "Factor 2" if latent.shape[1] > 1 else ""))
        if basis not in adata.obsm:
            msg = f"basis={basis!r} is not in obsm. Choose one of {', '.join(map(repr, adata.obsm))}."
            raise ValueError(msg)
        positions = np.asarray(adata.obsm[basis])
        if positions.ndim < 2 or positions.shape[1] < 2:  # noqa: PLR2004  a plane has two dimensions
            msg = f"basis={basis!r} has the shape {positions.shape}, but two columns are needed to place the cells."
            raise ValueError(msg)
        return cls(positions[:, :2], (shown(basis.removeprefix("X_")), ""))


def _notes(
    adata: AnnData, names: list[str], keys: Sequence[str] | str | None, rotation: Method | None, key: str
) -> list[list[str]]:
    """Lines of text for each factor, out of what is known of it."""
    measures = _measures(adata, names, rotation, key)
    followed = _followed(adata, names, keys, rotation, key)
    return [[line for line in (", ".join(measures[name]), followed.get(name)) if line] for name in names]


def _measures(adata: AnnData, names: list[str], rotation: Method | None, key: str) -> dict[str, list[str]]:
    explained = get.factors(adata, key=key)["explained_deviance"]
    if f"{key}_explained_deviance" in adata.uns:
        explained = get.explained_deviance(adata, key=key)["marginal"]
    measures = {name: [] if rotation else [f"{100 * explained[name]:z.1f} % of deviance"] for name in names}
    if f"{key}_stability" in adata.uns:
        frame = get.stability(adata, key=key)
        if frame.attrs["rotation"] == (rotation or ""):
            for name, score in frame["score"][names].items():
                measures[str(name)].append(f"stability {score:.2f}")
    return measures


def _followed(
    adata: AnnData, names: list[str], keys: Sequence[str] | str | None, rotation: Method | None, key: str
) -> dict[str, str]:
    """What each factor goes with, if that was asked."""
    if rotation is not None and keys is not None:
        msg = (
            f"keys={keys!r}: associations are of factors without rotation={rotation!r}. Leave one of them out, or "
            "keep the rotation with sc_ldvae.tl.rotate and call sc_ldvae.tl.associate for it."
        )
        raise ValueError(msg)
    if rotation is not None or (keys is None and f"{key}_associations" not in adata.uns):
        return {}
    frame = get.associations(adata, names, key=key).reset_index()
    if keys is not None:
        keys = [keys] if isinstance(keys, str) else list(keys)
        unknown = [one for one in keys if one not in set(frame["key"])]
        if unknown:
            msg = f"keys holds {unknown[0]!r}, which was not associated. Call sc_ldvae.tl.associate with it."
            raise ValueError(msg)
        frame = frame[frame["key"].isin(keys)]
    # The first is the strongest.
    rows = frame.drop_duplicates("factor").set_index("factor").to_dict("index")
    return {str(name): _sentence(row) for name, row in rows.items()}


def _sentence(row: Mapping[Hashable, Any]) -> str:
    key, highest, lowest = (shown(row[name]) for name in ("key", "highest", "lowest"))
    if row["kind"] == "continuous":
        return f"{key} (rho {row['statistic']:.2f})"
    return f"{key} (η² {row['statistic']:.2f}): high in {highest}, low in {lowest}"


def _draw(contents: list[Panel], notes: list[list[str]], cells: _Cells, latent: Floats, ncols: int) -> list[Axes]:
    width = _AROUND_WIDTH + _MAP + _BARS + _LETTER * letters(gene for panel in contents for gene in panel.ends.index)
    lines = [[part for line in note for part in wrap(line, int(width / _NOTE_LETTER))] for note in notes]
    most = max(map(len, lines))
    rows = max(len(panel.ends) for panel in contents) + 1
    height = _AROUND_HEIGHT + _LINE * most / 72 + max(_MAP, _ROW * rows)
    maps, bars = _new_axes(len(contents), ncols, width, height)
    draw(contents, "bar", ncols=ncols, ax=bars)
    points = _draw_maps(maps, cells, latent)
    for axis, panel, text in zip(maps, contents, lines, strict=True):
        _entitle(axis, panel.title, text, most)
    for axis in bars:
        axis.set_title("")
    for axis in (*maps[:-ncols], *bars[:-ncols]):
        axis.set(xlabel="", ylabel="")
    _add_color_bar(maps, points, height)
    return [*maps, *bars]


def _new_axes(n: int, ncols: int, width: float, height: float) -> tuple[list[Axes], list[Axes]]:
    """Axes of maps and of bars."""
    from matplotlib import pyplot as plt

    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    figure = plt.figure(figsize=(width * ncols + _COLOR_BAR, height * nrows + _BOTTOM), layout="constrained")
    grid = figure.subplots(nrows, 2 * ncols, width_ratios=[_MAP, _BARS] * ncols, squeeze=False)
    tiles = grid.reshape(-1, 2)
    for unused in tiles[n:].flat:
        unused.remove()
    return list(tiles[:n, 0]), list(tiles[:n, 1])


def _draw_maps(axes: Sequence[Axes], cells: _Cells, latent: Floats) -> PathCollection:
    from matplotlib.colors import LinearSegmentedColormap

    # White points would not be seen.
    colors = LinearSegmentedColormap.from_list("factor", [COLORS["negative"], "0.88", COLORS["positive"]])
    limit = float(np.percentile(np.abs(latent), _LIMIT_PERCENTILE)) or 1.0
    size = float(np.clip(_INK / max(len(latent), 1), *_SIZES))
    for axis, values in zip(axes, latent.T, strict=True):
        order = np.argsort(np.abs(values), kind="stable")
        points = axis.scatter(
            cells.positions[order, 0],
            cells.positions[order, 1],
            c=values[order],
            s=size,
            cmap=colors,
            vmin=-limit,
            vmax=limit,
            linewidths=0,
            rasterized=True,
        )
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(cells.labels[0], fontsize=8)
        axis.set_ylabel(cells.labels[1], fontsize=8)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    return points


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


def _add_color_bar(maps: Sequence[Axes], points: PathCollection, height: float) -> None:
    figure = figure_of(maps[0])
    share = 0.8 * height / figure.get_size_inches()[1]
    bar = figure.colorbar(points, ax=figure.axes, shrink=share, anchor=(0.0, 1.0), aspect=16, extend="both")
    bar.set_label("value of the factor", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
