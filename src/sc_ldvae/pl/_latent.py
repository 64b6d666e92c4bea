"""How the factors differ between groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import fitted_of, grouped
from sc_ldvae.pl._figure import add_note, finish, panels, plot
from sc_ldvae.pl._heat_map import heat_map
from sc_ldvae.pl._text import letters, shown
from sc_ldvae.pl._violins import draw_violins
from sc_ldvae.pl._wording import factor_numbers, factor_titles, listed, vanished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data, Positions

# Inches.
_WIDTH, _WIDTH_PER_LETTER = 1.7, 0.075
_AROUND, _HEIGHT_PER_GROUP = 0.8, 0.21
# More are no groups, but numbers or names of cells.
_MOST_GROUPS = 200


@plot
def latent(
    data: Data,
    groupby: str,
    *,
    kind: Literal["violin", "matrix"] = "violin",
    factors: Sequence[int | str] | int | str | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    ncols: int = 5,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the factors by group of cells: their distributions, or their means.

    Violins end at the smallest and the largest value; points are medians, and violins have the colours that a cell of
    the median has in :func:`embedding`. Each factor has a scale of its own. The matrix shows by how many standard
    deviations of the factor over all cells the mean of a group is above that of all cells; its colours end at the 99th
    percentile of the absolute values. Numbers of cells stand behind the groups.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    groupby
        Column of `obs` with the groups, 200 at most, in the order of their categories; of a modality also one that only
        the MuData has, of a joint fit one of the MuData. Cells without a group are left out of them.
    kind
        ``'violin'``, a panel for each factor; or ``'matrix'``, groups x factors, for many of them.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    ncols
        Panels per row.
    ax
        Axes to draw on, one for each factor, or one for the matrix.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes, one per factor or that of the matrix, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, factor, column or kind, if a factor is named twice, if the column has no group or more
        than 200, if cells have no latent, or if `ax` has another number of axes.

    See Also
    --------
    embedding : Cells coloured by the factors.
    sc_ldvae.get.latent : The values as a frame.
    sc_ldvae.tl.associate : Which columns the factors follow.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> [axis.get_title() for axis in sc_ldvae.pl.latent(adata, "batch", show=False)]
    ['Factor 1', 'Factor 2', 'Factor 3']
    >>> (axis,) = sc_ldvae.pl.latent(adata, "batch", kind="matrix", show=False)
    >>> [label.get_text() for label in axis.get_xticklabels()]
    ['1', '2', '3']
    """
    if kind not in {"violin", "matrix"}:
        msg = f"kind must be 'violin' or 'matrix', but is {kind!r}."
        raise ValueError(msg)
    _, stored = fitted_of(data, key, modality)
    chosen = listed(stored, factors)
    values = get.latent(data, key=key, modality=modality)[chosen].astype(np.float64)
    codes, groups = grouped(data, modality, groupby)
    _check_groups(groups, groupby)
    sizes = np.bincount(codes[codes >= 0])
    rows = [f"{shown(group)} ({size})" for group, size in zip(groups, sizes, strict=True)]
    if kind == "matrix":
        label = "mean of the group\n(standard deviations)"
        means, numbers = _means(values, codes, rows), factor_numbers(stored, chosen)
        axes = [heat_map(means, numbers, "RdBu_r", label=label, rows="groups", ax=ax)]
        axes[0].set_xlabel("factor", fontsize=8)
    else:
        wide = _WIDTH + _WIDTH_PER_LETTER * letters(rows) / min(ncols, len(chosen))
        axes = panels(len(chosen), ax, ncols=ncols, width=wide, height=_AROUND + _HEIGHT_PER_GROUP * len(rows))
        draw_violins(axes, values.to_numpy(), codes, rows)
        titles = factor_titles(stored, None)
        for axis, name in zip(axes, chosen, strict=True):
            axis.set_title(titles[name], fontsize=9)
            axis.set_xlabel("value of the factor", fontsize=8)
    for axis in axes:
        axis.set_ylabel(shown(groupby), fontsize=8)
    if ax is None:
        _say_once(axes, ncols)
        add_note(axes[0], _left_out(int((codes < 0).sum()), vanished(stored, factors)))
    return finish(axes, show=show, save=save)


def _check_groups(groups: Sequence[str], groupby: str) -> None:
    if not 1 <= len(groups) <= _MOST_GROUPS:
        msg = (
            f"groupby: obs[{groupby!r}] has {len(groups)} groups, but 1 to {_MOST_GROUPS} can be shown. Name a column "
            "of groups."
        )
        raise ValueError(msg)


def _means(values: pd.DataFrame, codes: Positions, rows: list[str]) -> pd.DataFrame:
    """Of each group, above that of all cells, in standard deviations over all cells."""
    spread = values.std(ddof=0)
    standard = (values - values.mean()) / spread.where(spread > 0, 1)
    return standard[codes >= 0].groupby(codes[codes >= 0]).mean().set_axis(rows)


def _say_once(axes: Sequence[Axes], ncols: int) -> None:
    """Names of groups on the left, and units below."""
    for place, axis in enumerate(axes):
        if place % ncols:
            axis.set_ylabel("")
            axis.tick_params(labelleft=False)
    for axis in axes[:-ncols]:
        axis.set_xlabel("")


def _left_out(n_cells: int, factors: str) -> str:
    return "; ".join(filter(None, [f"{n_cells} cells have no group" if n_cells else "", factors]))
