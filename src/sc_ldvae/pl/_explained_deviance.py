"""How much of the counts' variation the factors account for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._figure import figure_of, finish, lay_out, panels, plot
from sc_ldvae.pl._text import letters, shown

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path
    from typing import Any

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data

_BAR, _LINE = "0.75", "#b2182b"
# Inches.
_AROUND, _LEAST_WIDTH, _WIDTH_PER_FACTOR, _HEIGHT = 0.9, 3.0, 0.29, 3.2
_WIDTH_PER_LETTER, _HEIGHT_PER_GROUP = 0.075, 0.2
_LEAST_CELL = 0.22, 0.12
_FONT = 6.5
# Factors whose numbers would touch in the usual size.
_MANY = 20
# Columns between the factors and the total of a group.
_GAP = 0.5
# Of the largest share: above it the cells of the heat map are dark.
_DARK = 0.6
# Per cent: below it a share is written as zero.
_NEXT_TO_NOTHING = 0.05


@plot
def explained_deviance(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the share of the deviance that each factor explains, that of the first factors together, and the total.

    Bars are marginal shares: what is lost without the factor. The line is the cumulative share, that of the factors up
    to this one with all others at their means; it ends at the total. Where groups of cells were measured, a heat map
    beside it shows the marginal shares in each of them, and their totals.

    Before :func:`sc_ldvae.tl.explained_deviance` was called, the bars are the shares that the fit itself measured, and
    there is no line.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        The `key_added` of the result, by default ``'<key>_explained_deviance'``.
    ax
        Axes to draw on, two where groups were measured, else one.
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
        If there is no such fit, if the result is missing that `key_added` names or is of another fit, or
        if `ax` has another number of axes.

    See Also
    --------
    sc_ldvae.get.explained_deviance : The result as a frame.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.explained_deviance(adata, "batch", thinned=0.2, progress=False)
    >>> axes = sc_ldvae.pl.explained_deviance(adata, show=False)
    >>> [label.get_text() for label in axes[1].get_yticklabels()]
    ['batch0 (6)', 'batch1 (14)']
    """
    adata = pick_modality(data, modality)
    frame, groups = _measured(adata, key, key_added)
    axes = (
        _new_axes(frame, groups) if ax is None else panels(1 if groups is None else 2, ax, ncols=2, width=0, height=0)
    )
    _draw_shares(axes[0], frame)
    if groups is not None:
        _draw_groups(axes[1], groups)
    return finish(axes, show=show, save=save)


def _measured(adata: AnnData, key: str, key_added: str | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Shares of the factors, and of those in groups, if there are any: all that was measured, or else by the fit."""
    if key_added is None and f"{key}_explained_deviance" not in adata.uns:
        factors = get.factors(adata, key=key)
        total = factors.attrs["total_explained_deviance"]
        factors = factors[~factors["vanished"]]
        cells = "held_out" if record.held_out(adata, record.read(adata, key)).any() else "training"
        frame = factors[["explained_deviance"]].rename(columns={"explained_deviance": "marginal"})
        frame.attrs = {"total": total, "cells": cells, "thinned": 0.0}
        return frame, None
    frame = get.explained_deviance(adata, key=key, key_added=key_added)
    grouped = bool(frame.attrs["groupby"])
    return frame, get.explained_deviance(adata, by_group=True, key=key, key_added=key_added) if grouped else None


def _new_axes(frame: pd.DataFrame, groups: pd.DataFrame | None) -> list[Axes]:
    from matplotlib import pyplot as plt

    width = max(_LEAST_WIDTH, _WIDTH_PER_FACTOR * len(frame))
    if groups is None:
        return panels(1, None, ncols=1, width=_AROUND + width, height=_HEIGHT)
    beside = _WIDTH_PER_FACTOR * (len(frame) + 1 + _GAP)
    names = _AROUND + _WIDTH_PER_LETTER * letters(groups.index)
    size = (_AROUND + width + names + beside, max(_HEIGHT, 1.2 + _HEIGHT_PER_GROUP * len(groups)))
    figure = plt.figure(figsize=size, layout="constrained")
    return list(figure.subplots(1, 2, width_ratios=[width, beside]))


def _judged_by(attrs: dict[Hashable, Any]) -> str:
    cells = {"held_out": "held-out cells", "all": "all cells", "training": "cells of the fit"}[attrs["cells"]]
    return f"{cells}, {100 * attrs['thinned']:g} % of their counts" if attrs["thinned"] else cells


def _draw_shares(axis: Axes, frame: pd.DataFrame) -> None:
    from matplotlib.patheffects import withStroke

    numbers, shares, total = np.arange(1, len(frame) + 1), 100 * frame["marginal"], 100 * frame.attrs["total"]
    bars = axis.bar(numbers, shares, width=0.72, color=_BAR, label="each factor")
    # Weak factors have bars that can't be seen.
    texts = axis.bar_label(bars, [_short(share) for share in shares], fontsize=_FONT, padding=1, zorder=4)
    for text in texts:
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    if "cumulative" in frame:
        cumulative = 100 * frame["cumulative"]
        axis.plot(numbers, cumulative, color=_LINE, linewidth=1.2, marker="o", markersize=3, label="factors up to this")
    axis.margins(y=0.08)
    axis.axhline(total, color="0.3", linewidth=0.8, linestyle="--", label=f"all factors: {total:.1f} %")
    axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set_xticks(numbers)
    axis.set_xlim(0.4, len(frame) + 0.6)
    axis.set_xlabel("factor", fontsize=9)
    axis.set_ylabel(f"explained deviance (%)\n{_judged_by(frame.attrs)}", fontsize=9)
    axis.legend(
        frameon=False, fontsize=7.5, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1, handlelength=1.5
    )
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", length=0, labelsize=8 if len(frame) < _MANY else 7)
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(False)


def _short(percentage: float) -> str:
    """Two digits, if they are not both zero."""
    return f"{percentage:.1f}" if abs(percentage) >= 1 else f"{percentage:z.2f}"


def _draw_groups(axis: Axes, groups: pd.DataFrame) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shares = 100 * groups.drop(columns=["n_cells", "total"]).to_numpy()
    n_groups, n_factors = shares.shape
    largest = max(float(shares.max()), np.finfo(float).tiny)
    colors = LinearSegmentedColormap.from_list("share", ["white", _LINE])
    image = axis.imshow(shares, cmap=colors, vmin=0, vmax=largest, aspect="auto", interpolation="none")
    # A total is no share of one factor: it has no colour.
    total = n_factors + _GAP
    axis.set_xlim(-0.5, total + 0.6)
    axis.set_xticks([*range(n_factors), total], [*map(str, range(1, n_factors + 1)), "all"], fontsize=8)
    axis.set_yticks(range(n_groups), [f"{shown(name)} ({n})" for name, n in groups["n_cells"].items()], fontsize=8)
    axis.set_xlabel("factor", fontsize=9)
    axis.set_ylabel(shown(groups.attrs["groupby"]), fontsize=9)
    axis.set_title("explained deviance (%) by group (cells)", fontsize=9)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    for row, value in enumerate(100 * groups["total"]):
        axis.text(total, row, f"{value:.1f}", ha="center", va="center", fontsize=_FONT)
    lay_out([axis])
    cell = np.array(axis.get_window_extent().size) / figure_of(axis).dpi / (total + 1.1, n_groups)
    if (cell < _LEAST_CELL).any():
        axis.figure.colorbar(image, ax=axis).ax.tick_params(labelsize=8)
        return
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > _DARK * largest else "0.6" if abs(share) < _NEXT_TO_NOTHING else "black"
        axis.text(column, row, f"{share:z.1f}", ha="center", va="center", fontsize=_FONT, color=color)
