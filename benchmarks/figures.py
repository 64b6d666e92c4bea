"""Pictures of the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from benchmarks.data import DATA_SETS
from benchmarks.methods import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

_COLORS = {
    "ldvae": "#0072B2",
    "linear_scvi": "#D55E00",
    "linear_scvi_tutorial": "#B6498E",
    "pca": "#666666",
    "nmf": "#009E73",
    "glmpca": "#8C6D1F",
}
_STYLE = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "axes.titlesize": 10}
# Of the range of the final values: what is shown below the worst and above the best of them.
_BELOW, _ABOVE, _LEAST_RANGE = 2.0, 0.35, 0.02
_COLUMNS = 3
# A curve whose best point comes before this share of its points has fallen since.
_LATE = 0.7
# Between two labels, as a share of the height.
_BETWEEN_LABELS = 0.07


def elbo(runs: pd.DataFrame, path: Path) -> None:
    """Held-out ELBO against wall seconds, a panel per data set, a curve per run."""
    if "curve" not in runs:
        return
    panels = [(name, part) for name, part in runs.groupby("data", sort=False) if part["curve"].notna().any()]
    with mpl.rc_context(_STYLE):
        n_columns = min(_COLUMNS, len(panels))
        n_rows = -(-len(panels) // n_columns)
        figure = Figure((4.2 * n_columns, 3.4 * n_rows), layout="constrained")
        for i, (name, part) in enumerate(panels):
            _elbo_panel(figure.add_subplot(n_rows, n_columns, i + 1), name, part)
        figure.supylabel("held-out ELBO per cell, nats")
        figure.savefig(path, dpi=200)


def scaling(table: pd.DataFrame, path: Path) -> None:
    """Seconds per epoch and peak memory, against cells and against genes."""
    rows = {"seconds": "seconds per epoch (PCA: whole call)", "memory": "peak memory, MB, without torch and counts"}
    columns = {"cells": "n_train", "genes": "n_genes"}
    with mpl.rc_context(_STYLE):
        figure = Figure((8.4, 6.4), layout="constrained")
        axes = figure.subplots(len(rows), len(columns), sharex="col", sharey="row")
        for i, (value, value_label) in enumerate(rows.items()):
            for j, (against, size) in enumerate(columns.items()):
                part, ax = table[table["against"] == against], axes[i, j]
                _scaling_panel(ax, part, size, value)
                if i == len(rows) - 1:
                    ax.set_xlabel("training cells" if against == "cells" else "genes")
                if j == 0:
                    ax.set_ylabel(value_label)
                if i == 0:
                    fixed = "n_genes" if against == "cells" else "n_train"
                    ax.set_title(f"{part[fixed].median():,.0f} {'genes' if against == 'cells' else 'training cells'}")
        for i, value in enumerate(rows):
            for j, against in enumerate(columns):
                _label_ends(axes[i, j], table[table["against"] == against], value)
        figure.savefig(path, dpi=200)


def prediction(table: pd.DataFrame, path: Path) -> None:
    """Cosine with the other half's factor against the score, a point per factor."""
    with mpl.rc_context(_STYLE):
        figure = Figure((4.6, 4.2), layout="constrained")
        ax = figure.add_subplot()
        ax.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
        for name, part in table.groupby("data", sort=False):
            ax.scatter(part["score"], part["cosine"], s=14, alpha=0.8, linewidths=0, label=name)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="score, from one half of the cells")
        ax.set_ylabel("cosine with the factor of the other half")
        ax.legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=200)


def _elbo_panel(ax: Axes, name: str, runs: pd.DataFrame) -> None:
    finals = {}
    for method, part in runs[runs["curve"].notna()].groupby("method", sort=False):
        for curve in part["curve"]:
            seconds, values = np.array([(p["seconds"], p["elbo"]) for p in curve if p["elbo"] is not None]).T
            ax.plot(seconds, values, color=_COLORS[method], lw=1.4, marker=".", ms=3)
        ax.plot(seconds[-1], values[-1], "o", color=_COLORS[method], ms=5)
        finals[method] = part["elbo"].median()
        # A curve that ends below its best comes from above.
        sign, va = (-1, "top") if values.argmax() + 1 < _LATE * len(values) else (1, "bottom")
        place = {"textcoords": "offset points", "ha": "center" if method == "ldvae" else "right", "va": va}
        ax.annotate(
            NAMES[method],
            (seconds[-1], values[-1]),
            (4, 6 * sign),
            color=_COLORS[method],
            fontweight="bold",
            **place,
        )
    best, worst = max(finals.values()), min(finals.values())
    extent = max(best - worst, _LEAST_RANGE * abs(best))
    ax.set(xscale="log", xlabel="wall seconds")
    _plain_numbers(ax, "x")
    ax.set_ylim(worst - _BELOW * extent, best + _ABOVE * extent)
    reference = finals.get(DATA_SETS[name].reference)
    if reference is not None:
        ax.axhline(reference, color=_COLORS[DATA_SETS[name].reference], lw=0.8, ls=":")
    if (runs["method"] == "pca").any():
        seconds = runs.loc[runs["method"] == "pca", "seconds"].median()
        ax.axvline(seconds, color=_COLORS["pca"], lw=0.8, ls="--")
        # Its name stands on the left of it.
        ax.set_xlim(left=min(ax.get_xlim()[0], 0.6 * seconds))
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
        ax.annotate("sc.pp.pca", (seconds, 0.02), (-2, 0), ha="right", va="bottom", color=_COLORS["pca"], **place)
    first = runs[runs["n_genes"].notna()].iloc[0]
    ax.set_title(f"{name}: {first['n_train']:,} training cells, {first['n_genes']:,} genes")


def _scaling_panel(ax: Axes, table: pd.DataFrame, size: str, value: str) -> None:
    for method, part in table.groupby("method", sort=False):
        ax.plot(part[size], part[value], "o-", color=_COLORS[method], lw=1.4, ms=4)
    ax.set(xscale="log", yscale="log")
    ax.margins(y=0.15)
    _plain_numbers(ax, "xy")


def _label_ends(ax: Axes, table: pd.DataFrame, value: str) -> None:
    """Name the curves at the right, beside their ends, one above the other where these are close."""
    low, high = np.log(ax.get_ylim())
    below = -np.inf
    for method, end in table.groupby("method")[value].last().sort_values().items():
        height = max((np.log(end) - low) / (high - low), below + _BETWEEN_LABELS)
        place = {"transform": ax.transAxes, "va": "center"}
        ax.text(1.01, height, NAMES[method], color=_COLORS[method], fontweight="bold", **place)
        below = height


def _plain_numbers(ax: Axes, which: str) -> None:
    """Ticks as 0.1, 1, 10; in between only where there are few decades."""
    for name in which:
        axis = {"x": ax.xaxis, "y": ax.yaxis}[name]
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(_FewMinor())


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


class _FewMinor(LogFormatter):
    """Which minor ticks have a number is matplotlib's choice, how it looks is ours."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _plain(x) if super().__call__(x, pos) else ""
