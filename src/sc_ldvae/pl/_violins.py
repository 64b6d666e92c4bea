"""Distributions of values in groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import gaussian_kde

from sc_ldvae.pl._maps import diverging, limit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Floats, Positions

# Of the distance between two rows: half the height of a violin where it is highest.
_HALF_HEIGHT = 0.44
_N_POINTS = 100
# Evenly spaced cells of a group that show its distribution as well as all of them.
_MOST_CELLS = 2_000


def draw_violins(axes: Sequence[Axes], values: Floats, codes: Positions, names: Sequence[str]) -> None:
    """Draw one violin for each group, the first on top, on each of the axes.

    Parameters
    ----------
    axes
        Where, one for each column of `values`.
    values
        n_obs x axes.
    codes
        Group of each cell, -1 without one.
    names
        Of the groups; each has a cell.
    """
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names)))
    rows, limit = np.arange(len(names)), limit_of(values)
    for axis, column in zip(axes, values.T, strict=True):
        groups = np.split(column[order], starts)[1:]
        medians = np.array([np.median(group) for group in groups])
        colors = diverging()((medians / limit + 1) / 2)
        for row, group, color in zip(rows.tolist(), groups, colors, strict=True):
            # One value alone has no distribution.
            if group.min() < group.max():
                _draw(axis, row, group, color)
        axis.scatter(medians, rows, s=9, color="0.1", linewidths=0, zorder=3)
        axis.axvline(0, color="0.3", linewidth=0.8, zorder=0)
        axis.set_yticks(rows, names, fontsize=8)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.tick_params(labelsize=8)
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False)
        axis.spines[["top", "right", "left"]].set_visible(False)


def _draw(axis: Axes, row: int, group: Floats, color: Floats) -> None:
    spaced = group[np.linspace(0, len(group) - 1, min(len(group), _MOST_CELLS)).astype(np.intp)]
    levels = np.linspace(group.min(), group.max(), _N_POINTS)
    # Where those that are taken are equal, the others are as good as equal, too.
    density = gaussian_kde(spaced)(levels) if spaced.min() < spaced.max() else np.ones(_N_POINTS)
    half = _HALF_HEIGHT * density / density.max()
    axis.fill_between(levels, row - half, row + half, facecolor=color, edgecolor="0.35", linewidth=0.4, zorder=2)
