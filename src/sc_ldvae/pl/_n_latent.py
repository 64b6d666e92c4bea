"""Numbers of factors that were compared."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from sc_ldvae import get
from sc_ldvae.pl._figure import figure_of, finish, panels, plot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data

_COLOR, _OTHER, _CHOSEN = "#b2182b", "#2166ac", "0.55"
_LETTERS = 118
# Of the largest number: above it stands the legend.
_HEADROOM = 1.5


@plot
def n_latent(
    data: Data,
    *,
    key_added: str = "ldvae_n_latent",
    modality: str | None = None,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot how numbers of factors compare, and which one is recommended.

    Three panels show the ELBO of held-out cells, as the difference from the best with its standard error; how well
    factors come back in the other half of the cells; and how many of them do, and how many vary over the cells, under
    the diagonal on which all would. The vertical line is the recommendation, and the title says why.

    Parameters
    ----------
    data
        AnnData with a result of :func:`sc_ldvae.tl.select_n_latent`, or MuData with such a `modality` or with one of
        several modalities together.
    key_added
        The `key_added` of the result.
    modality
        Modality of a MuData; None for a result of several together.
    ax
        Axes to draw on, three. The title is left out then.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The three axes, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such result, or if `ax` has another number of axes.

    See Also
    --------
    sc_ldvae.get.n_latent : The result as a frame.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=400, n_vars=60, n_latent=2)
    >>> sc_ldvae.tl.select_n_latent(adata, [1, 2, 4], n_seeds=1, max_epochs=30, progress=False)
    >>> axes = sc_ldvae.pl.n_latent(adata, show=False)
    >>> len(axes)
    3
    """
    frame = get.n_latent(data, key_added=key_added, modality=modality)
    axes = panels(3, ax, ncols=3, width=2.9, height=2.9)
    _draw_elbo(axes[0], frame)
    _draw_stability(axes[1], frame)
    _draw_counts(axes[2], frame)
    _dress(axes, frame)
    if ax is None:
        reason = fill(frame.attrs["reason"], _LETTERS)
        figure_of(axes[0]).suptitle(reason, fontsize=9, x=0.01, ha="left")
    return finish(axes, show=show, save=save)


def _draw_elbo(axis: Axes, frame: pd.DataFrame) -> None:
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    # The best lies behind itself by nothing, without an error.
    axis.errorbar(
        frame.index, -frame["elbo_behind"], yerr=frame["elbo_behind_se"], color=_COLOR, marker="o", markersize=4
    )
    axis.set_ylabel("held-out ELBO, from the best\n(nats per cell)", fontsize=9)


def _draw_stability(axis: Axes, frame: pd.DataFrame) -> None:
    axis.plot(frame.index, frame["stability"], color=_COLOR, marker="o", markersize=4)
    axis.set_ylim(0, 1)
    axis.set_ylabel("mean cosine of factors\nbetween halves of the cells", fontsize=9)


def _draw_counts(axis: Axes, frame: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.plot(frame.index, frame.index, color="0.7", linewidth=0.8, linestyle="--", label="all")
    axis.plot(frame.index, frame["n_active"], color=_OTHER, marker="s", markersize=4, label="active")
    axis.plot(frame.index, frame["n_stable"], color=_COLOR, marker="o", markersize=4, label="come back (cosine 0.5)")
    axis.set_ylim(0, _HEADROOM * frame.index.max())
    axis.set_ylabel("number of factors", fontsize=9)
    axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _dress(axes: Sequence[Axes], frame: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.axvline(frame.attrs["recommended"], color=_CHOSEN, linewidth=1, linestyle=":", zorder=0)
        axis.set_xlabel("number of factors that are fitted", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.tick_params(labelsize=8)
        axis.grid(visible=False)
        axis.spines[["top", "right"]].set_visible(False)
