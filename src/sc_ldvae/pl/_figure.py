"""What every plot does alike: a grid of axes, and showing, saving or returning it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sc_ldvae._typing import Ax


def panels(n: int, ax: Ax | None, *, ncols: int, width: float, height: float) -> list[Axes]:
    """`n` axes: those that the caller gave, or new ones in a grid of panels of `width` x `height` inches.

    Raises
    ------
    ValueError
        If the caller gave another number of axes.
    """
    from matplotlib import pyplot as plt

    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n:
            msg = f"ax holds {len(given)} axes, but {n} panels are to be drawn."
            raise ValueError(msg)
        return given
    ncols = max(1, min(ncols, n))
    nrows = -(-n // ncols)
    figure, grid = plt.subplots(nrows, ncols, figsize=(width * ncols, height * nrows), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.08)
    for unused in grid.flat[n:]:
        unused.remove()
    return list(grid.flat[:n])


def figure_of(axis: Axes) -> Figure:
    """The figure, also of axes that lie in a subfigure."""
    return axis.figure.canvas.figure


def finish(axes: Sequence[Axes], *, show: bool | None, save: str | Path | None) -> list[Axes] | None:
    """Save and show as asked; `show=None` follows scanpy's ``settings.autoshow``. The axes where nothing is shown."""
    from matplotlib import pyplot as plt
    from scanpy import settings

    if save is not None:
        figure_of(axes[0]).savefig(save, bbox_inches="tight", dpi=200)
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return list(axes)
