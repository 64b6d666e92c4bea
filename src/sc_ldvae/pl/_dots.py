"""Dots of many rows and factors, whose areas and colours say something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.pl._figure import panels
from sc_ldvae.pl._text import letters, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

# Inches.
_WIDTH_PER_FACTOR, _WIDTH_PER_LETTER, _HEIGHT_PER_ROW = 0.24, 0.075, 0.2
_AROUND = 0.9


def dot(area: float, label: str, color: str = "0.5") -> Artist:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, marker="o", linestyle="", markersize=area**0.5, markeredgewidth=0, label=label)


def new_axes(rows: pd.Index[str], n_factors: int, ax: Axes | None, *, beside: float = 0) -> Axes:
    """Axes of the caller, or new ones for so many rows and factors, with room for what stands `beside` (inches)."""
    width = _AROUND + _WIDTH_PER_FACTOR * max(n_factors, 4) + _WIDTH_PER_LETTER * letters(rows) + beside
    return panels(1, ax, ncols=1, width=width, height=_AROUND + _HEIGHT_PER_ROW * max(len(rows), 4))[0]


def draw_dots(
    axis: Axes,
    areas: pd.DataFrame,
    numbers: Sequence[str],
    **colors: Any,  # noqa: ANN401  as scatter has it
) -> PathCollection:
    """Draw a dot for each entry of `areas` (rows x factors, square points), and the names.

    `colors` is what `scatter` takes, in the order of the entries, row by row.
    """
    n_rows, n_columns = areas.shape
    rows, columns = np.indices(areas.shape).reshape(2, -1)
    dots = axis.scatter(columns, rows, s=areas.to_numpy().ravel(), zorder=2, **colors)
    axis.set_xticks(np.arange(n_columns), numbers, fontsize=8)
    axis.set_yticks(np.arange(n_rows), list(map(shown, areas.index)), fontsize=8)
    axis.set(xlim=(-0.6, n_columns - 0.4), ylim=(n_rows - 0.4, -0.6))
    axis.set_xlabel("factor", fontsize=9)
    axis.tick_params(length=0)
    axis.grid(visible=True, color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
    return dots
