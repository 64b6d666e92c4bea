"""What every plot does alike: a grid of axes, and showing, saving or returning it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from sc_ldvae._arguments import door
from sc_ldvae._said import said
from sc_ldvae.pl._save import check_save, write
from sc_ldvae.pl._text import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sc_ldvae._typing import Ax

# Inches.
_LEGEND_ROW = 0.2

P = ParamSpec("P")
R = TypeVar("R")


def plot(function: Callable[P, R]) -> Callable[P, R]:
    """A public function that refuses a wrong `save` before it draws, and leaves no figure open when it fails."""
    checked = door(function)

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import pyplot as plt

        check_save(kwargs.get("save"))
        before = set(plt.get_fignums())
        try:
            return checked(*args, **kwargs)
        except BaseException:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            raise

    return whole


def panels(n: int, ax: Ax | None, *, ncols: int, width: float, height: float) -> list[Axes]:
    """`n` axes: those that the caller gave, or new ones in a grid of panels of `width` x `height` inches.

    Raises
    ------
    ValueError
        If the caller gave another number of axes, or axes without a figure or of other coordinates.
    TypeError
        If the caller gave anything else.
    """
    from matplotlib import pyplot as plt

    if ax is not None:
        given = list(_flat(ax))
        for axis in given:
            _check_axes(axis)
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


def _flat(ax: Any) -> Iterator[Any]:  # noqa: ANN401  it is yet to be checked
    """Whatever lists and arrays hold, in their order."""
    if isinstance(ax, np.ndarray):
        ax = ax.ravel().tolist()
    if isinstance(ax, Sequence) and not isinstance(ax, str):
        for part in ax:
            yield from _flat(part)
    else:
        yield ax


def _check_axes(axis: Any) -> None:  # noqa: ANN401  it is yet to be checked
    from matplotlib.axes import Axes

    if not isinstance(axis, Axes):
        msg = f"ax holds {said(axis)}, a {type(axis).__name__}, but must be matplotlib Axes or a list or array of them."
        raise TypeError(msg)
    if axis.get_figure() is None:
        msg = "ax holds axes that were taken out of their figure. Give axes of a figure."
        raise ValueError(msg)
    if axis.name == "3d" or "left" not in axis.spines:
        msg = f"ax holds {axis.name} axes, but plots need rectilinear ones, as matplotlib makes them by default."
        raise ValueError(msg)


def figure_of(axis: Axes) -> Figure:
    """The figure, also of axes that lie in a subfigure."""
    return axis.figure.canvas.figure


def lay_out(axes: Sequence[Axes]) -> None:
    """Give everything on the figure its final place, for what is put beside it."""
    literal(axes)
    figure_of(axes[0]).draw_without_rendering()


def add_note(axis: Axes, note: str) -> None:
    """A line under all panels of a new figure, if there is anything to say."""
    if note:
        figure_of(axis).supxlabel(note, fontsize=7)


def legend_below(axis: Axes, handles: Sequence[Artist], entry: float = 1.1) -> None:
    """A legend under all panels of a new figure, which grows by it; an entry is about so many inches wide."""
    figure = figure_of(axis)
    width, height = figure.get_size_inches()
    ncols = int(np.clip(width / entry, 1, len(handles)))
    figure.legend(handles=list(handles), loc="outside lower center", ncols=ncols, frameon=False, fontsize=7)
    figure.set_size_inches(width, height + _LEGEND_ROW * -(-len(handles) // ncols))


def finish(axes: Sequence[Axes], *, show: bool | None, save: str | Path | None) -> list[Axes] | None:
    """Save and show as asked; `show=None` follows scanpy's ``settings.autoshow``. The axes where nothing is shown."""
    from matplotlib import pyplot as plt
    from scanpy import settings

    literal(axes)
    if save is not None:
        write(figure_of(axes[0]), save)
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return list(axes)
