"""What the factors go with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import get, record
from sc_ldvae.inputs import fitted_of
from sc_ldvae.pl._dots import dot, draw_dots, new_axes
from sc_ldvae.pl._ends import COLORS
from sc_ldvae.pl._figure import finish, legend_below, plot
from sc_ldvae.pl._wording import associated, factor_numbers, listed, vanished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data

_CATEGORICAL = "0.35"
# Square points: of a column that says all of a factor.
_AREA = 150.0
_EXAMPLES = 0.1, 0.5, 1.0
# Inches: an entry of the legend.
_ENTRY = 1.5


@plot
def associations(
    data: Data,
    factors: Sequence[int | str] | int | str | None = None,
    *,
    keys: Sequence[str] | str | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot how closely each factor follows columns of `obs`.

    The area of a dot is the share of the factor's variance between the levels of a categorical column (eta squared,
    grey), or for a number the square of Spearman's correlation (rho): red where the factor rises with it, blue where it
    falls. The column that some factor follows most closely stands first.

    Parameters
    ----------
    data
        AnnData with a result of :func:`sc_ldvae.tl.associate`, or MuData with such a `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    keys
        Columns of `obs` to show, in this order; all that were associated if None.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the associations, by default ``'<key>_associations'``.
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
        If there is no such fit, result or factor, if a factor or column is named twice, or if a column was not
        associated.

    See Also
    --------
    sc_ldvae.get.associations : The result as a frame, with the levels in which factors are highest and lowest.
    latent : Factors by group of cells.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.associate(adata, ["batch", "ldvae_library"])
    >>> axis = sc_ldvae.pl.associations(adata, keys=["ldvae_library", "batch"], show=False)
    >>> [label.get_text() for label in axis.get_yticklabels()]
    ['ldvae_library', 'batch']
    """
    _, stored = fitted_of(data, key, modality)
    names = listed(stored, factors)
    found = get.associations(data, names, key=key, modality=modality, key_added=key_added)
    table = found.reset_index().assign(share=lambda rows: rows["strength"] ** 2, color=_colors)
    shares, colors = (table.pivot_table(value, "key", "factor", aggfunc="first") for value in ("share", "color"))
    rows = _closest_first(shares) if keys is None else pd.Index(associated(table["key"], keys))
    shares, colors = shares.loc[rows, names], colors.loc[rows, names]
    axis = new_axes(rows, len(names), ax)
    draw_dots(axis, _AREA * shares, factor_numbers(stored, names), c=colors.to_numpy().ravel(), linewidths=0)
    if ax is None:
        legend_below(axis, _legend(colors.to_numpy(), vanished(stored, factors)), _ENTRY)
    return None if finish([axis], show=show, save=save) is None else axis


def _colors(table: pd.DataFrame) -> np.ndarray:
    signed = np.where(table["statistic"] < 0, COLORS["negative"], COLORS["positive"])
    return np.where(table["kind"] == "continuous", signed, _CATEGORICAL)


def _closest_first(shares: pd.DataFrame) -> pd.Index[str]:
    return shares.max(axis=1).sort_values(ascending=False, kind="stable").index


def _legend(colors: np.ndarray, note: str) -> list[Artist]:
    from matplotlib.lines import Line2D

    rises, falls = COLORS["positive"], COLORS["negative"]
    meanings = {_CATEGORICAL: "category: η²", rises: "number: rho > 0", falls: "number: rho < 0"}
    shown = [dot(_AREA / 2, label, color) for color, label in meanings.items() if (colors == color).any()]
    shown += [dot(_AREA * share, f"η² or rho² = {share}") for share in _EXAMPLES]
    return shown + [Line2D([], [], linestyle="", label=note)] * bool(note)
