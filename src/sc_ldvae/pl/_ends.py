"""The genes at both ends of a ranking, one panel per ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd

from sc_ldvae.get import HALF_INTERVAL
from sc_ldvae.pl._dots import dot
from sc_ldvae.pl._figure import figure_of, lay_out, legend_below, panels
from sc_ldvae.pl._names import COLUMN, ROW, stack
from sc_ldvae.pl._text import letters, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Floats, Positions

Kind: TypeAlias = Literal["bar", "rank", "dot"]

COLORS = {"positive": "#b2182b", "negative": "#2166ac"}
_PALE = {"positive": "#e8b9be", "negative": "#b3cce3"}
Q = 0.05
# Inches.
_WIDTH = 1.6
_WIDTH_PER_LETTER = 0.075
_HEIGHT_PER_GENE = 0.17
_HEIGHT_PER_NAME = 0.2
_LEAST_HEIGHT_OF_RANKS = 2.4
_N_WIDENINGS = 5
# Of dots, in square points: that of a q-value of one and of the smallest that is told from smaller ones.
_AREAS = 6.0, 60.0
_MOST_DIGITS = 10
# Of the largest value, where the axes end: dots reach beyond their values.
_MARGINS = {"bar": 1.05, "dot": 1.12}


class Panel(NamedTuple):
    """What one panel shows."""

    title: str
    label: str
    """Of the axis of effects: what they are, and their unit."""
    effects: pd.Series[float]
    """Of all genes."""
    ends: pd.DataFrame
    """Rows of :func:`sc_ldvae.get.top_genes`, indexed by gene."""
    modality: str = ""
    """Of a joint fit."""


def check_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        msg = f"kind must be 'bar', 'rank' or 'dot', but is {kind!r}."
        raise ValueError(msg)


def draw(contents: Sequence[Panel], kind: Kind, *, ncols: int, ax: Ax | None, note: str = "") -> list[Axes]:
    """Draw the panels; the note joins the legend.

    All of a modality have one scale, else a weak one looks as strong as the first. Effects in another modality are of
    another size, for they say by how much other things differ.
    """
    ends = pd.concat([panel.ends for panel in contents])
    most = max(len(panel.ends) for panel in contents)
    height = 1.0 + _HEIGHT_PER_GENE * most
    if kind == "rank":
        height = max(1.0 + _HEIGHT_PER_NAME * most, _LEAST_HEIGHT_OF_RANKS)
    axes = panels(len(contents), ax, ncols=ncols, width=_WIDTH + _WIDTH_PER_LETTER * letters(ends.index), height=height)
    # Where one end has no genes, bars are as thick as elsewhere.
    last = max(int(_rows(panel.ends).max(initial=0)) for panel in contents)
    for axis, panel in zip(axes, contents, strict=True):
        axis.set_title(panel.title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(visible=False)
        axis.spines[["top", "right"]].set_visible(False)
        if kind == "rank":
            _draw_ranks(axis, panel)
        else:
            _draw_rows(axis, panel, kind, last)
    for of_modality in dict.fromkeys(panel.modality for panel in contents):
        own = [i for i, panel in enumerate(contents) if panel.modality == of_modality]
        _set_scale([axes[i] for i in own], [contents[i] for i in own], kind)
    if ax is None and kind != "rank":
        explain(axes[0], ends, kind, note)
    return axes


def _set_scale(axes: Sequence[Axes], contents: Sequence[Panel], kind: Kind) -> None:
    if kind == "rank":
        _name_ranks(axes, contents)
        return
    limits = _reach(pd.concat([panel.ends for panel in contents]), _MARGINS[kind])
    for axis in axes:
        axis.set_xlim(*limits)


def _rows(genes: pd.DataFrame) -> Positions:
    """Of genes in their order. Those between the two ends are left out: so is a row."""
    return np.arange(len(genes)) + (genes["direction"] == "negative").to_numpy()


def _draw_rows(axis: Axes, panel: Panel, kind: Kind, last: int) -> None:
    """Bars or dots, the largest value on top, the smallest at the bottom; `last` is the last row of any panel."""
    from matplotlib.ticker import MaxNLocator

    genes = panel.ends.sort_values("loading", ascending=False, kind="stable")
    rows = _rows(genes)
    values, colors = genes["loading"].to_numpy(), _colors(genes)
    if kind == "bar":
        axis.barh(rows, values, height=0.72, color=colors)
    else:
        axis.scatter(values, rows, s=_areas(genes), color=colors, linewidths=0, zorder=3)
    if "se" in genes:
        axis.errorbar(
            values, rows, xerr=HALF_INTERVAL * genes["se"].to_numpy(), fmt="none", ecolor="0.2", elinewidth=0.7
        )
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(rows, list(map(shown, genes.index)), fontsize=8)
    if "fitted" in genes:
        for label, fitted in zip(axis.get_yticklabels(), genes["fitted"], strict=True):
            label.set_fontstyle("normal" if fitted else "italic")
    axis.set_ylim(last + 0.6, -0.6)
    axis.set_xlabel(panel.label, fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.spines["left"].set_visible(False)


def _draw_ranks(axis: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    ranks = _ranks(panel)
    axis.scatter(ranks, panel.effects, s=3, color="0.7", linewidths=0, rasterized=True)
    ends = panel.ends
    axis.scatter(ranks[ends.index], ends["loading"], s=8, color=_colors(ends), linewidths=0, zorder=3)
    axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set_xlabel("rank of the gene", fontsize=8)
    axis.set_ylabel(panel.label, fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _ranks(panel: Panel) -> pd.Series[float]:
    return panel.effects.rank(method="first", ascending=False)


def _name_ranks(axes: Sequence[Axes], contents: Sequence[Panel]) -> None:
    """One scale with room for the names above and below the curves, then the names."""
    lay_out(axes)
    rows = min(axis.get_window_extent().height for axis in axes) / (ROW * figure_of(axes[0]).dpi / 72)
    bounds = [_over_and_under(panel) for panel in contents]
    limits = _limits(contents, bounds, rows)
    for axis, panel, (over, under) in zip(axes, contents, bounds, strict=True):
        axis.set_ylim(*limits)
        ranks = _ranks(panel)
        ends = panel.ends.sort_values("loading", key=abs, ascending=False, kind="stable")
        for direction, genes in ends.groupby("direction"):
            points = np.column_stack([ranks[genes.index], genes["loading"]])
            below = direction == "negative"
            stack(axis, points, genes.index.tolist(), below=below, inner=under if below else over)


def _over_and_under(panel: Panel) -> tuple[float, float]:
    """Levels of the curve where the columns of names begin: names above and below them do not cover it."""
    ranked = np.sort(panel.effects.to_numpy())
    i = min(max(int(COLUMN / 2 * len(ranked)), len(panel.ends) // 2), len(ranked) // 2)
    return max(ranked[-1 - i], 0), min(ranked[i], 0)


def _limits(contents: Sequence[Panel], bounds: Sequence[tuple[float, float]], rows: float) -> tuple[float, float]:
    low = 1.05 * min(panel.effects.min() for panel in contents)
    high = 1.05 * max(panel.effects.max() for panel in contents)
    # A wider scale makes a row larger, so the room is found in steps; it ends where names would take nearly all of it.
    for _ in range(_N_WIDENINGS):
        row = (high - low) / rows
        for panel, (over, under) in zip(contents, bounds, strict=True):
            count = panel.ends["direction"].value_counts()
            high = max(high, over + row * count.get("positive", 0))
            low = min(low, under - row * count.get("negative", 0))
    return low, high


def _colors(genes: pd.DataFrame) -> list[str]:
    """By direction, pale where the sign is not known."""
    pale = genes["qvalue"] > Q if "qvalue" in genes else np.zeros(len(genes), dtype=bool)
    return [(_PALE if p else COLORS)[direction] for p, direction in zip(pale, genes["direction"], strict=True)]


def _areas(genes: pd.DataFrame) -> Floats:
    if "qvalue" not in genes:
        return np.full(len(genes), np.mean(_AREAS))
    return area_of(genes["qvalue"].to_numpy())


def area_of(q: Floats) -> Floats:
    """Of a dot, in square points, by its q-value."""
    digits = np.minimum(-np.log10(np.maximum(q, np.finfo(float).tiny)), _MOST_DIGITS)
    return _AREAS[0] + (_AREAS[1] - _AREAS[0]) * digits / _MOST_DIGITS


def _reach(ends: pd.DataFrame, margin: float) -> tuple[float, float]:
    """Limits that hold all values and whiskers, but no whisker much longer than the longest bar."""
    whiskers = HALF_INTERVAL * ends["se"] if "se" in ends else 0
    longest = 1.5 * ends["loading"].abs().max()
    low = max((ends["loading"] - whiskers).min(), -longest)
    high = min((ends["loading"] + whiskers).max(), longest)
    return min(0, margin * low), max(0, margin * high)


def explain(axis: Axes, ends: pd.DataFrame, kind: Kind, note: str = "") -> None:
    """Legend of whiskers, pale colours and areas, and a note, under the panels of a new figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if "se" not in ends:
        return
    handles: list[Artist] = [Line2D([], [], color="0.2", linewidth=0.7, label="95 % interval")]
    if (ends["qvalue"] > Q).any():
        handles.append(Patch(color="0.8", label=f"q > {Q}"))
    if "fitted" in ends and not ends["fitted"].all():
        handles.append(Line2D([], [], linestyle="", label="italics: not in the fit"))
    if note:
        handles.append(Line2D([], [], linestyle="", label=note))
    if kind == "dot":
        handles += q_dots()
    legend_below(axis, handles)


def q_dots() -> list[Artist]:
    """Entries of a legend for dots whose areas are those of q-values."""
    examples = ((Q, f"q = {Q}"), (1e-5, "q = 1e-5"), (0, f"q < 1e-{_MOST_DIGITS}"))
    return [dot(float(area_of(np.array(q))), label) for q, label in examples]
