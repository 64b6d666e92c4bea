"""Cells in their places, coloured by factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.pl._ends import COLORS
from sc_ldvae.pl._figure import figure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PathCollection
    from matplotlib.colors import Colormap

    from sc_ldvae._typing import Floats
    from sc_ldvae.pl._places import Places

# Of all values shown: the largest few would make all others pale.
_LIMIT_PERCENTILE = 99
# Square points that all cells of a map have together for each square inch, and the sizes of one.
_INK = 3_100
_SIZES = 0.2, 12.0


def diverging() -> Colormap:
    """Blue below zero, red above. At zero it is grey: white points would not be seen."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("factor", [COLORS["negative"], "0.88", COLORS["positive"]])


def limit_of(values: Floats) -> float:
    """Where the colours end on both sides of zero."""
    return float(np.percentile(np.abs(values), _LIMIT_PERCENTILE)) or 1.0


def draw_maps(axes: Sequence[Axes], cells: Places, values: Floats, side: float) -> PathCollection:
    """Draw the cells once for each column of `values` (n_obs x axes), on axes about `side` inches wide."""
    limit = limit_of(values)
    size = float(np.clip(_INK * side**2 / max(len(values), 1), *_SIZES))
    for axis, column in zip(axes, values.T, strict=True):
        order = np.argsort(np.abs(column), kind="stable")
        points = axis.scatter(
            cells.positions[order, 0],
            cells.positions[order, 1],
            c=column[order],
            s=size,
            cmap=diverging(),
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


def add_color_bar(axes: Sequence[Axes], drawn: ScalarMappable, height: float, label: str) -> None:
    """A colour bar beside the axes, about so many inches high."""
    share = min(1.0, height / figure_of(axes[0]).get_size_inches()[1])
    from matplotlib.cm import ScalarMappable

    # A caller's axes may be of several figures, and what was drawn of another one than the bar.
    beside, colors = [axis for axis in axes if axis.figure is axes[0].figure], ScalarMappable(drawn.norm, drawn.cmap)
    bar = axes[0].figure.colorbar(colors, ax=beside, shrink=share, anchor=(0.0, 1.0), aspect=16, extend="both")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
