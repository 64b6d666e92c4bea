"""Numbers of many rows and factors, as a heat map with a diverging map of colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.pl._figure import panels
from sc_ldvae.pl._text import letters, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from sc_ldvae._typing import Ax

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


def heat_map(
    frame: pd.DataFrame, numbers: Sequence[str], colors: str | Colormap, *, label: str, rows: str, ax: Ax | None
) -> Axes:
    """Draw a heat map on the axes of the caller, or on new ones.

    Parameters
    ----------
    frame
        Rows with names x factors.
    numbers
        Of the factors.
    colors
        Diverging; they end at the 99th percentile of the absolute entries.
    label
        What the entries are.
    rows
        What the rows are, for those that are too many to have names.
    """
    axis = _new_axes(frame, ax)
    n_rows, n_columns = frame.shape
    limit = float(np.percentile(frame.abs(), _LIMIT_PERCENTILE)) or 1.0
    image = axis.imshow(frame, cmap=colors, vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    font = min(8.0, 72 * 0.8 * _row_height(n_rows))
    axis.set_yticks(np.arange(n_rows), list(map(shown, frame.index)), fontsize=font)
    if n_rows > _MOST_ROWS:
        axis.set_yticks([])
        axis.set_ylabel(f"{n_rows} {rows}", fontsize=8)
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
    return axis


def by_factor(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the factor of their most extreme entry, from the largest to the smallest of it."""
    values = frame.to_numpy()
    own = np.abs(values).argmax(1)
    return frame.iloc[np.lexsort([-values[np.arange(len(own)), own], own])]


def _row_height(n: int) -> float:
    return _ROW if n <= _MOST_HIGH_ROWS else _LOW_ROW


def _new_axes(frame: pd.DataFrame, ax: Ax | None) -> Axes:
    n_rows, n_columns = frame.shape
    width = 1.6 + _WIDTH_PER_FACTOR * max(n_columns, 4) + _WIDTH_PER_LETTER * letters(frame.index)
    height = max(1.0 + _row_height(n_rows) * n_rows, _LEAST_HEIGHT) if n_rows <= _MOST_ROWS else _NAMELESS_HEIGHT
    return panels(1, ax, ncols=1, width=width, height=height)[0]
