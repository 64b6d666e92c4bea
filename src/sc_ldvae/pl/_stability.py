"""How well factors come back from other cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.get import replication
from sc_ldvae.pl._figure import figure_of, finish, panels, plot

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data, Floats

_BAR, _POINT, _SPAN = "0.78", "#b2182b", "#2166ac"
# Inches.
_LEAST_WIDTH, _WIDTH_PER_FACTOR, _HEIGHT, _FLAGS, _LEGEND = 4.6, 0.24, 3.6, 0.7, -0.4
_GUIDES = 0.5, 0.8
# Why bars stand above their points.
_WITH_HALVES = "score, extrapolated\nto all cells\n(Spearman-Brown)", "pair of refits\nto halves of the cells"
# Of the distance between two factors: over it the points of one are spread.
_SPREAD = 0.4


@plot
def stability(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot how well each factor comes back in refits.

    Bars are the scores, points the cosines between the factor's matches in each pair of refits (those below 0 are
    drawn there). With halves of the cells bars stand above their points: these are of fits to halves of the cells, and
    the score is extrapolated from them to fits to all cells (Spearman-Brown); the legend says so. Blue marks are the
    span: far above the points, the factor comes back mixed with others. Factors that most refits split or merge
    say so above. Lines at 0.5 and 0.8 guide the eye.

    Parameters
    ----------
    data
        AnnData with a result of :func:`sc_ldvae.tl.stability`, or MuData with such a `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the result, by default ``'<key>_stability'``.
    ax
        Axes to draw on.
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
        If there is no such fit or result, or if the result is of another fit.

    See Also
    --------
    sc_ldvae.get.stability : The result as a frame.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.stability(adata, n_seeds=2, progress=False)
    >>> axis = sc_ldvae.pl.stability(adata, show=False)
    >>> [label.get_text() for label in axis.get_xticklabels()]
    ['1', '2', '3']
    """
    frame = get.stability(data, key=key, modality=modality, key_added=key_added)
    width = max(_LEAST_WIDTH, 1 + _WIDTH_PER_FACTOR * len(frame))
    flagged = bool(frame[["splits", "merges"]].to_numpy().any())
    axis = panels(1, ax, ncols=1, width=width, height=_HEIGHT + _FLAGS * flagged)[0]
    _draw(axis, frame, replication(data, key, modality, key_added))
    _dress(axis, frame)
    return None if finish([axis], show=show, save=save) is None else axis


def _draw(axis: Axes, frame: pd.DataFrame, pairs: Floats) -> None:
    from matplotlib.transforms import ScaledTranslation

    numbers = np.arange(1, len(frame) + 1)
    for level in _GUIDES:
        axis.axhline(level, color="0.85", linewidth=0.8, zorder=0)
    score, pair = _WITH_HALVES if frame.attrs["subsample"] == "halves" else ("score", "pair of refits")
    bars = axis.bar(numbers, frame["score"], width=0.72, color=_BAR, label=score)
    # In a fixed order: equal results give equal pictures.
    offsets = _SPREAD * ((np.arange(len(pairs)) + 0.5) / len(pairs) - 0.5)
    points = axis.scatter(
        (numbers + offsets[:, None]).ravel(),
        pairs.clip(0, 1).ravel(),
        s=7,
        color=_POINT,
        linewidths=0,
        zorder=3,
        clip_on=False,
        label=pair,
    )
    marks = axis.scatter(
        numbers, frame["span"], s=70, color=_SPAN, marker="_", linewidths=1.4, zorder=2, clip_on=False, label="span"
    )
    for number, splits, merges in zip(numbers, frame["splits"], frame["merges"], strict=True):
        flags = ", ".join(name for name, flag in (("splits", splits), ("merges", merges)) if flag)
        axis.annotate(
            flags,
            (number, 1),
            (0, 6),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
        )
    axis.legend(
        handles=[bars, points, marks],
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axis.transAxes + ScaledTranslation(0, _LEGEND, figure_of(axis).dpi_scale_trans),
    )


def _dress(axis: Axes, frame: pd.DataFrame) -> None:
    from matplotlib.ticker import FixedLocator

    cells = {"halves": "halves of the cells", "bootstrap": "bootstrap samples of the cells", "": "the same cells"}
    attrs = frame.attrs
    axis.set_ylim(0, 1)
    axis.yaxis.set_major_locator(FixedLocator([0, *_GUIDES, 1]))
    axis.set_xticks(np.arange(1, len(frame) + 1))
    axis.set_xlim(0.4, len(frame) + 0.6)
    axis.set_xlabel(f"factor ({attrs['rotation']})" if attrs["rotation"] else "factor", fontsize=9)
    axis.set_ylabel(f"cosine of loadings\n{attrs['n_seeds']} refits, {cells[attrs['subsample']]}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", length=0)
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(False)
