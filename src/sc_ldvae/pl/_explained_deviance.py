"""How much of the counts' variation the factors account for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import get, record
from sc_ldvae.inputs import fitted_of
from sc_ldvae.pl._figure import finish, panels, plot
from sc_ldvae.pl._share_map import COLOR, FONT, GAP, WIDTH_PER_FACTOR, WIDTH_PER_LETTER, draw_share_map
from sc_ldvae.pl._text import letters, shown
from sc_ldvae.pl._wording import judged_by, of_the_fit
from sc_ldvae.record import JointRecord

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data
    from sc_ldvae.record import Record

_BAR = "0.75"
# Inches.
_AROUND, _LEAST_WIDTH, _HEIGHT = 0.9, 3.0, 3.2
_HEIGHT_PER_GROUP = 0.2
_PANELS_PER_ROW = 3
# Shares of a group of fewer are mostly chance.
_FEWEST_CELLS = 10
# Of the total: bars as tall hold their number. Per cent: what is explained without factors is drawn from it on.
_TALL, _LEAST_BASE = 0.2, 0.5
# Factors whose numbers would touch in the usual size.
_MANY = 20
# Entries of a legend.
_PER_LINE = 3


@plot
def explained_deviance(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the share of the deviance that each factor explains, that of the first factors together, and the total.

    Bars are the shares of the factors. The line adds them up, from what is explained without any factor, as by
    covariates, to the total. Where groups of cells were measured, a heat map beside it shows the shares in each of
    them, and their totals. Groups of fewer than ten cells are grey: their shares are mostly chance.

    Before :func:`sc_ldvae.tl.explained_deviance` was called, the bars are the shares that the fit itself measured, and
    there is no line. By default they are measured on the same cells; the axis says which they are. Other plots show the
    shares of the fit, whatever was measured afterwards. Of a joint fit these are shares of the deviance of all
    modalities together, and what was measured of it afterwards has a panel for each modality;
    :func:`sc_ldvae.pl.modalities` has them in one.

    Results of versions that measured marginal shares (what is lost without the factor) are drawn as these, which do not
    add up to the total.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the result, by default ``'<key>_explained_deviance'``.
    ax
        Axes to draw on, two where groups were measured, one for each modality where these were, else one.
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
        If there is no such fit, if the result is missing that `key_added` names or is of another fit, or
        if `ax` has another number of axes.

    See Also
    --------
    sc_ldvae.get.explained_deviance : The result as a frame.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.explained_deviance(adata, "batch", thinned=0.2, progress=False)
    >>> axes = sc_ldvae.pl.explained_deviance(adata, show=False)
    >>> [label.get_text() for label in axes[1].get_yticklabels()]
    ['batch0 (6)', 'batch1 (14)']
    """
    whose, stored = fitted_of(data, key, modality)
    frames, groups = _measured(whose, stored, key, key_added)
    widest = max(map(len, frames.values()))
    axes = (
        _new_axes(len(frames), widest, groups)
        if ax is None
        else panels(len(frames) + (groups is not None), ax, ncols=1, width=0, height=0)
    )
    everything = "all factors and covariates" if stored.first.design.columns else "all factors"
    for axis, (name, frame) in zip(axes, frames.items(), strict=False):
        _draw_shares(axis, frame, name, everything)
    if groups is not None:
        names = [f"{shown(name)} ({n})" for name, n in groups["n_cells"].items()]
        shares = groups.drop(columns=["n_cells", "total"])
        few = groups["n_cells"].to_numpy() < _FEWEST_CELLS
        title = "explained deviance (%) by group (cells)" + f"\ngrey: fewer than {_FEWEST_CELLS} cells" * bool(
            few.any()
        )
        draw_share_map(axes[-1], shares, groups["total"].tolist(), names, title, unsure=few)
        axes[-1].set_ylabel(shown(groups.attrs["groupby"]), fontsize=9)
    return finish(axes, show=show, save=save)


def _measured(
    whose: Data, stored: Record | JointRecord, key: str, key_added: str | None
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame | None]:
    """Shares of the factors, by modality where they were measured so, and in groups, if there are any."""
    if key_added is None and f"{key}_explained_deviance" not in whose.uns:
        factors = get.factors(whose, key=key)
        total = factors.attrs["total_explained_deviance"]
        frame = factors[~factors["vanished"]][["explained_deviance"]].set_axis(["share"], axis=1)
        frame.attrs = {"total": total, **of_the_fit(whose, stored)}
        return {"": frame}, None
    frame = get.explained_deviance(whose, key=key, key_added=key_added)
    if isinstance(stored, JointRecord):
        return {str(name): _of_modality(frame, str(name)) for name in frame}, None
    grouped = bool(frame.attrs["groupby"])
    groups = get.explained_deviance(whose, by_group=True, key=key, key_added=key_added) if grouped else None
    return {"": frame}, groups


def _of_modality(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    of_all = ("total", "n_cells", "base")
    attrs = {part: value[name] if part in of_all else value for part, value in frame.attrs.items()}
    if "base" not in attrs:
        own = frame[[name]].set_axis(["marginal"], axis=1)
    else:
        own = pd.DataFrame({"share": frame[name], "cumulative": attrs["base"] + frame[name].cumsum()})
    own.attrs = attrs
    return own


def _new_axes(n: int, n_factors: int, groups: pd.DataFrame | None) -> list[Axes]:
    from matplotlib import pyplot as plt

    width = max(_LEAST_WIDTH, WIDTH_PER_FACTOR * n_factors)
    if groups is None:
        return panels(n, None, ncols=_PANELS_PER_ROW, width=_AROUND + width, height=_HEIGHT)
    beside = WIDTH_PER_FACTOR * (n_factors + 1 + GAP)
    names = _AROUND + WIDTH_PER_LETTER * letters(groups.index)
    size = (_AROUND + width + names + beside, max(_HEIGHT, 1.2 + _HEIGHT_PER_GROUP * len(groups)))
    figure = plt.figure(figsize=size, layout="constrained")
    return list(figure.subplots(1, 2, width_ratios=[width, beside]))


def _draw_shares(axis: Axes, frame: pd.DataFrame, modality: str, everything: str) -> None:
    from matplotlib.patheffects import withStroke

    of = f" of {shown(modality)}" if modality else ""
    measure, label = ("share", "each factor") if "share" in frame else ("marginal", "each factor (marginal share)")
    numbers, shares, total = np.arange(1, len(frame) + 1), 100 * frame[measure], 100 * frame.attrs["total"]
    bars = axis.bar(numbers, shares, width=0.72, color=_BAR, label=label)
    # Weak factors have bars that can't be seen.
    texts = axis.bar_label(bars, [_short(share) for share in shares], fontsize=FONT, padding=1, zorder=4)
    for text in texts:
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    if "cumulative" in frame:
        cumulative = 100 * frame["cumulative"]
        axis.plot(numbers, cumulative, color=COLOR, linewidth=1.2, marker="o", markersize=3, label="factors up to this")
        if shares.iloc[0] > _TALL * total:
            # Above a bar that can hold its number the line begins.
            texts[0].set(va="top")
            texts[0].xyann = (0, -3)
    base = 100 * frame.attrs.get("base", 0)
    if measure == "share" and abs(base) >= _LEAST_BASE:
        axis.axhline(base, color="0.3", linewidth=0.8, linestyle=":", label=f"without factors: {base:.1f} %")
    axis.margins(y=0.08)
    axis.axhline(total, color="0.3", linewidth=0.8, linestyle="--", label=f"{everything}: {total:.1f} %")
    axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set_xticks(numbers)
    axis.set_xlim(0.4, len(frame) + 0.6)
    axis.set_xlabel("factor", fontsize=9)
    axis.set_ylabel(f"explained deviance{of} (%)\n{judged_by(frame.attrs)}", fontsize=9)
    handles = axis.get_legend_handles_labels()[0]
    axis.legend(
        frameon=False,
        fontsize=7.5,
        ncols=_PER_LINE if len(handles) <= _PER_LINE else 2,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        columnspacing=1,
        handlelength=1.5,
    )
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", length=0, labelsize=8 if len(frame) < _MANY else 7)
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(False)


def _short(percentage: float) -> str:
    """Two digits, if they are not both zero."""
    return f"{percentage:.1f}" if abs(percentage) >= 1 else f"{percentage:z.2f}"
