"""Shares of the factors in several groups or modalities, as a heat map beside their totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.pl._figure import figure_of, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Mask

COLOR = "#b2182b"
_UNSURE, _PALE = "0.92", "0.6"
# Inches.
WIDTH_PER_FACTOR, WIDTH_PER_LETTER = 0.29, 0.075
_LEAST_CELL = 0.22, 0.12
FONT = 6.5
# Columns between the factors and the total.
GAP = 0.5
# Of the largest share: above it the cells of the heat map are dark.
_DARK = 0.6
# Per cent: below it a share is written as zero.
_NEXT_TO_NOTHING = 0.05


def draw_share_map(
    axis: Axes,
    shares: pd.DataFrame,
    totals: Sequence[float],
    names: Sequence[str],
    title: str,
    *,
    unsure: Mask | None = None,
    by_row: bool = False,
) -> None:
    """Draw shares, rows x factors, in per cent, and the totals of the rows.

    Parameters
    ----------
    axis
        Where.
    shares, totals
        What.
    names
        Of the rows.
    title
        What the numbers are.
    unsure
        Rows without colours, whose shares are mostly chance; None for none of them.
    by_row
        Colour each row by its own largest share, in place of that of all.
    """
    from matplotlib.colors import LinearSegmentedColormap

    percent = 100 * shares.to_numpy()
    n_rows, n_factors = percent.shape
    grey = np.zeros(n_rows, dtype=bool) if unsure is None else unsure
    colored = np.where(grey[:, None], 0, percent)
    largest = np.maximum(colored.max(axis=1 if by_row else None, keepdims=True), np.finfo(float).tiny)
    values, top = colored, float(largest.max())
    if by_row:
        # In a row of shares below zero there is no colour.
        values, top = 100 * (np.maximum(colored, 0) / largest), 100.0
    colors = LinearSegmentedColormap.from_list("share", ["white", COLOR]).with_extremes(bad=_UNSURE)
    shown = np.ma.masked_array(values, np.broadcast_to(grey[:, None], values.shape))
    image = axis.imshow(shown, cmap=colors, vmin=0, vmax=top, aspect="auto", interpolation="none")
    # A total is no share of one factor: it has no colour.
    total = n_factors + GAP
    axis.set_xlim(-0.5, total + 0.6)
    axis.set_xticks([*range(n_factors), total], [*map(str, range(1, n_factors + 1)), "all"], fontsize=8)
    axis.set_yticks(range(n_rows), names, fontsize=8)
    axis.set_xlabel("factor", fontsize=9)
    axis.set_title(title, fontsize=9)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    for row, value in enumerate(totals):
        color = _PALE if grey[row] else "black"
        axis.text(total, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=FONT, color=color)
    lay_out([axis])
    cell = np.array(axis.get_window_extent().size) / figure_of(axis).dpi / (total + 1.1, n_rows)
    if (cell < _LEAST_CELL).any():
        bar = axis.figure.colorbar(image, ax=axis)
        bar.ax.tick_params(labelsize=8)
        bar.set_label("% of the largest of the row" if by_row else "", fontsize=8)
        return
    for (row, column), share in np.ndenumerate(percent):
        dark = values[row, column] > _DARK * top
        color = "white" if dark else _PALE if abs(share) < _NEXT_TO_NOTHING or grey[row] else "black"
        axis.text(column, row, f"{share:z.1f}", ha="center", va="center", fontsize=FONT, color=color)
